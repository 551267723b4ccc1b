//! The folder of copies. A copy is a file with a record beside it, both named after a fingerprint of the source. A copy
//! is served only if its bytes have the checksum in the record.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RequantizeError;
use super::difference::Difference;
use crate::checksum::{checksum_of, hex};

/// To be changed whenever copies are made differently, so that older copies aren't used.
const VERSION: &str = "weir requantized 1";
/// Number of samples of a source that are hashed with its size and time, each of [`SAMPLE_BYTES`]. Hashing all of it
/// would delay each start.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4_096;

/// The facts about a copy, stored as JSON beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The path of the source.
    pub(super) source: PathBuf,
    pub(super) formats: String,
    pub(super) difference: Difference,
    /// `None` if the copy differed too much to be kept.
    pub(super) copy: Option<Whole>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whole {
    bytes: u64,
    sha256: String,
}

/// The folder, and the name in it of the copy of one source.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
    source: PathBuf,
    name: String,
}

impl Copies {
    pub(super) fn of(source: &Path, folder: &Path) -> Result<Self, RequantizeError> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        let fingerprint = fingerprint(source).map_err(at(source))?;
        Ok(Copies {
            folder: folder.to_owned(),
            source: source.to_owned(),
            name: format!("{stem}-{fingerprint}"),
        })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.gguf", self.name))
    }

    fn record(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// The record, unless its copy is missing or has been changed.
    pub(super) fn find(&self) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record()).ok()?).ok()?;
        let is_whole = match &record.copy {
            Some(copy) => Whole::of(&self.file()).is_ok_and(|found| found == *copy),
            None => true,
        };
        is_whole.then_some(record)
    }

    /// Takes the lock that is held while a copy is made. It is released when the file is closed or the process ends.
    pub(super) fn lock(&self) -> Result<File, RequantizeError> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(at(&path))?;
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Removes files that crashed processes left unfinished, and a copy of this source that is no longer complete. The lock must
    /// be held. Returns the path under which a copy is made.
    pub(super) fn clear(&self) -> Result<PathBuf, RequantizeError> {
        let unfinished = |path: &PathBuf| path.extension().is_some_and(|end| end == "unfinished");
        let mut gone: Vec<_> = self.entries()?.into_iter().filter(unfinished).collect();
        gone.extend([self.record(), self.file()]);
        gone.iter().try_for_each(|path| remove(path))?;
        Ok(self.unfinished("gguf"))
    }

    /// Whether the source still has the fingerprint of these copies.
    pub(super) fn are_of(&self, source: &Path) -> Result<bool, RequantizeError> {
        Ok(self.name == Copies::of(source, &self.folder)?.name)
    }

    /// Gives a finished copy its name, or removes it if it isn't to be served, and writes the record. The record comes last,
    /// since a copy without one doesn't count. Copies of earlier states of the source are removed.
    pub(super) fn keep(
        &self,
        temporary: &Path,
        formats: &str,
        difference: Difference,
        serve: bool,
    ) -> Result<Record, RequantizeError> {
        let mut record = Record {
            source: self.source.clone(),
            formats: formats.to_owned(),
            difference,
            copy: None,
        };
        if serve {
            let synced = File::open(temporary).and_then(|file| file.sync_all());
            synced.map_err(at(temporary))?;
            record.copy = Some(Whole::of(temporary).map_err(at(temporary))?);
            fs::rename(temporary, self.file()).map_err(at(temporary))?;
        } else {
            remove(temporary)?;
        }
        let written = self.unfinished("json");
        let json = serde_json::to_vec_pretty(&record).expect("plain data");
        fs::write(&written, json).map_err(at(&written))?;
        fs::rename(&written, self.record()).map_err(at(&written))?;
        self.remove_older()?;
        Ok(record)
    }

    fn unfinished(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}.unfinished", self.name))
    }

    fn remove_older(&self) -> Result<(), RequantizeError> {
        for path in self.entries()? {
            let is_record = path.extension().is_some_and(|end| end == "json");
            if !is_record || path == self.record() {
                continue;
            }
            let read = fs::read(&path).map_err(at(&path))?;
            let record: Result<Record, _> = serde_json::from_slice(&read);
            if record.is_ok_and(|record| record.source == self.source) {
                remove(&path)?;
                remove(&path.with_extension("gguf"))?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<PathBuf>, RequantizeError> {
        let entries = fs::read_dir(&self.folder).map_err(at(&self.folder))?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<io::Result<_>>().map_err(at(&self.folder))
    }
}

impl Whole {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Whole {
            bytes: fs::metadata(path)?.len(),
            sha256: checksum_of(path)?,
        })
    }
}

/// Checks, before anything is written, that the folder's disk has this many bytes free.
pub(super) fn check_room(folder: &Path, needed: u64) -> Result<(), RequantizeError> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| at(folder)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if needed < free {
        return Ok(());
    }
    Err(RequantizeError::DiskFull {
        folder: folder.to_owned(),
        needed_mib: needed >> 20,
        free_mib: free >> 20,
    })
}

/// A fingerprint that differs between sources, and after a source was changed.
fn fingerprint(source: &Path) -> io::Result<String> {
    let mut file = File::open(source)?;
    let facts = file.metadata()?;
    let modified = facts.modified()?.duration_since(UNIX_EPOCH);
    let mut hash = Sha256::new();
    hash.update(VERSION);
    hash.update(std::env::consts::ARCH);
    hash.update(facts.len().to_le_bytes());
    hash.update(modified.unwrap_or_default().as_nanos().to_le_bytes());
    for sample in 0..SAMPLES {
        file.seek(SeekFrom::Start(facts.len() / SAMPLES * sample))?;
        let mut sample = Vec::new();
        (&file).take(SAMPLE_BYTES).read_to_end(&mut sample)?;
        hash.update(&sample);
    }
    Ok(hex(&hash.finalize()[..8]))
}

fn remove(path: &Path) -> Result<(), RequantizeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RequantizeError {
    let path = path.to_owned();
    |error| RequantizeError::File { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFFERENCE: Difference = Difference {
        tokens: 400,
        kl_mean: 0.001,
        same_best: 0.99,
    };

    fn kept(folder: &Path, source: &Path, serve: bool) -> Copies {
        let copies = Copies::of(source, &folder.join("copies")).unwrap();
        let temporary = copies.clear().unwrap();
        fs::write(&temporary, [7; 100_000]).unwrap();
        let record = copies.keep(&temporary, "A to B", DIFFERENCE, serve);
        assert_eq!(record.ok(), copies.find());
        assert!(!temporary.exists());
        copies
    }

    /// Keeps a copy, damages it, and checks whether it still counts.
    fn check(what: &str, damage: impl FnOnce(&Copies, &Path), counts: bool) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.gguf");
        fs::write(&source, [1; 1_000_000]).unwrap();
        let copies = kept(folder.path(), &source, true);
        damage(&copies, &source);
        let again = Copies::of(&source, &copies.folder).unwrap();
        assert_eq!(again.find().is_some(), counts, "{what}");
        // Whatever the damage was, a new copy takes its place, and nothing is left of the old one.
        let again = kept(folder.path(), &source, true);
        let mut left = again.entries().unwrap();
        left.sort();
        assert_eq!(left, [again.file(), again.record()], "{what}");
    }

    #[test]
    fn a_copy_counts_while_it_is_whole_and_of_this_file() {
        let write = |path: &Path, at: u64, bytes: &[u8]| {
            let mut file = File::options().write(true).open(path).unwrap();
            file.seek(SeekFrom::Start(at)).unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
        };
        let cut = |path: &Path| {
            let length = fs::metadata(path).unwrap().len();
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(length / 2).unwrap();
        };
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let age = |path: &Path, time| File::open(path).unwrap().set_modified(time).unwrap();
        check("nothing", |_, _| {}, true);
        check(
            "a byte",
            |copies, _| write(&copies.file(), 50_000, &[8]),
            false,
        );
        check("half the copy", |copies, _| cut(&copies.file()), false);
        check("half the record", |copies, _| cut(&copies.record()), false);
        check(
            "no copy",
            |copies, _| remove(&copies.file()).unwrap(),
            false,
        );
        check(
            "no record",
            |copies, _| remove(&copies.record()).unwrap(),
            false,
        );
        let left = |copies: &Copies, _: &Path| {
            fs::write(copies.folder.join("x.gguf.unfinished"), "x").unwrap();
        };
        check("somebody died", left, true);
        let other = |_: &Copies, source: &Path| {
            let time = modified(source);
            write(source, 999_999 / 64 * 63, &[2; 100]);
            age(source, time);
        };
        check("a source as long and as old", other, false);
        let longer = |_: &Copies, source: &Path| {
            let time = modified(source);
            write(source, 1_000_000, &[1]);
            age(source, time);
        };
        check("a longer source", longer, false);
        let newer = |_: &Copies, source: &Path| {
            age(source, modified(source) + std::time::Duration::from_secs(1));
        };
        check("a newer source", newer, false);
    }

    #[test]
    fn what_differs_too_much_is_only_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.gguf");
        fs::write(&source, "a").unwrap();
        let copies = kept(folder.path(), &source, false);
        assert_eq!(copies.entries().unwrap(), [copies.record()]);
        assert_eq!(copies.find().and_then(|record| record.copy), None);
        assert!(copies.find().is_some());
    }
}

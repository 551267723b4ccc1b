//! The files of a loaded model. They are mapped, so a change of a file changes the weights that are computed with.
//!
//! Replacing a file by a rename is harmless: the mapping keeps the old file. Writing over a file in place, as `cp` does, is
//! not. If the file became shorter, the kernels' next read faults, which [`faults`] survives; if it kept its size nothing
//! faults, and only its times tell ([`Files::look`]): that of the last write, which a program may put back, and that of the last
//! change, which no program can. In either case the weights aren't trusted any more, and
//! nothing else is computed with them.

mod faults;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use self::faults::Guard;
use crate::checksum;

/// The files of a model, in the order of their numbers, with their sizes and times when the model was loaded.
#[derive(Debug)]
pub struct Files {
    parts: Vec<Part>,
    guards: OnceLock<Vec<Guard>>,
    distrusted: OnceLock<String>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// Stays open, so that the checks see the mapped file, not another one that has taken its name.
    file: File,
    bytes: u64,
    times: Mutex<Times>,
}

/// When a file's bytes were written last, and when anything about it changed last: its bytes, its times, its mode, its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Times {
    fn of(facts: &Metadata) -> Self {
        Times {
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        }
    }
}

/// Whether the files have changed since they were opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    AsBefore,
    /// This file has the same size and a new modification time: only its bytes tell whether it was written to or just touched.
    Written(PathBuf),
    /// This one has the same size and the same time of the last write, and something about it changed: its mode, its names,
    /// or its bytes and the time was put back. Its bytes tell.
    Changed(PathBuf),
    /// A file has another size, or can't be looked at.
    Replaced(String),
}

impl Files {
    /// Opens the files that are about to be mapped.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let open = |path: &PathBuf| Part::open(path).map_err(|error| (path.clone(), error));
        Ok(Files {
            parts: paths.iter().map(open).collect::<Result<_, _>>()?,
            guards: OnceLock::new(),
            distrusted: OnceLock::new(),
        })
    }

    /// Survives faults in the files' mappings from now on. To be called when the files have just been mapped; fails if one of
    /// them was replaced before.
    pub(crate) fn mapped(&self) -> Result<(), String> {
        for part in &self.parts {
            if !part.has_its_name() {
                return Err(format!(
                    "{} was replaced while it was loaded",
                    part.path.display()
                ));
            }
        }
        let guards = self
            .parts
            .iter()
            .map(|part| Guard::new(&part.path, &part.file));
        self.guards.get_or_init(|| guards.collect());
        Ok(())
    }

    /// Forgets the files' mappings: to be called when the model has been freed.
    pub(crate) fn unmapped(&self) {
        faults::forget_unmapped();
    }

    /// The path of the first file.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// The reason why nothing more may be computed with the weights, if there is one. Looks for faults in the mappings first.
    pub fn distrusted(&self) -> Option<&str> {
        let mut guards = self.guards.get().into_iter().flatten();
        if self.distrusted.get().is_none() && guards.any(Guard::has_faulted) {
            self.distrust(format!(
                "{} can't be read any more where it is mapped: it was cut or written over, or its disk fails",
                self.path().display()
            ));
        }
        self.distrusted.get().map(String::as_str)
    }

    /// Marks the weights as not to be trusted. A reason that was given before stays.
    pub fn distrust(&self, why: String) {
        self.distrusted.get_or_init(|| why);
    }

    /// Compares the files' sizes and times with what they were.
    pub fn look(&self) -> Look {
        let looks = self.parts.iter().map(Part::look);
        let changed = looks.into_iter().find(|look| *look != Look::AsBefore);
        changed.unwrap_or(Look::AsBefore)
    }

    /// The files' times as they are, where they can be told.
    pub fn times(&self) -> Vec<Option<Times>> {
        let of = |part: &Part| Some(Times::of(&part.file.metadata().ok()?));
        self.parts.iter().map(of).collect()
    }

    /// The bytes were compared after the files had these times, and haven't changed: [`Files::look`] compares with these
    /// times from now on.
    pub fn accept(&self, times: &[Option<Times>]) {
        for (part, times) in self.parts.iter().zip(times) {
            if let Some(times) = times {
                *part.times() = *times;
            }
        }
    }

    /// SHA-256 of each file, with its path; `None` once `go_on` has said no.
    pub fn sha256(
        &self,
        mut go_on: impl FnMut() -> bool,
    ) -> io::Result<Option<Vec<(PathBuf, String)>>> {
        let mut sums = Vec::new();
        for part in &self.parts {
            let Some(sum) = checksum::sha256(part.read_all(), &mut go_on)? else {
                return Ok(None);
            };
            sums.push((part.path.clone(), sum));
        }
        Ok(Some(sums))
    }
}

impl Part {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        Ok(Part {
            path: path.to_owned(),
            bytes: facts.len(),
            times: Mutex::new(Times::of(&facts)),
            file,
        })
    }

    fn has_its_name(&self) -> bool {
        let identity = |facts: Metadata| (facts.dev(), facts.ino());
        let (named, open) = (fs::metadata(&self.path), self.file.metadata());
        matches!((named.map(identity), open.map(identity)), (Ok(named), Ok(open)) if named == open)
    }

    fn look(&self) -> Look {
        let path = self.path.display();
        let facts = match self.file.metadata() {
            Ok(facts) => facts,
            Err(error) => return Look::Replaced(format!("{path} can't be looked at: {error}")),
        };
        if facts.len() != self.bytes {
            let (now, before) = (facts.len(), self.bytes);
            return Look::Replaced(format!(
                "{path} was written over: it has {now} bytes, and had {before}"
            ));
        }
        let (before, now) = (*self.times(), Times::of(&facts));
        match before.modified == now.modified {
            true if before == now => Look::AsBefore,
            true => Look::Changed(self.path.clone()),
            false => Look::Written(self.path.clone()),
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the whole file without moving its offset, so that several threads may read at once.
    fn read_all(&self) -> impl io::Read + '_ {
        struct Reading<'a> {
            file: &'a File,
            at: u64,
        }
        impl io::Read for Reading<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let read = self.file.read_at(buffer, self.at)?;
                self.at += read as u64;
                Ok(read)
            }
        }
        Reading {
            file: &self.file,
            at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{FileTimes, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn changes_are_told_apart_by_size_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let check =
            |what: &str, change: &dyn Fn(&Path), expected: &dyn Fn(&Look, &Path) -> bool| {
                let path = folder.path().join(what);
                fs::write(&path, "before").unwrap();
                // As a file that was written a minute ago.
                let old = fs::metadata(&path).unwrap().modified().unwrap()
                    - std::time::Duration::from_secs(60);
                let set_time =
                    |file: &File| file.set_times(FileTimes::new().set_modified(old)).unwrap();
                set_time(&File::options().write(true).open(&path).unwrap());
                let files = Files::open(std::slice::from_ref(&path)).unwrap();
                assert_eq!(files.look(), Look::AsBefore, "{what}");
                // The file system's clock may stand still for some milliseconds.
                while files.look() == Look::AsBefore {
                    change(&path);
                }
                assert!(expected(&files.look(), &path), "{what}: {:?}", files.look());
                files.accept(&files.times());
                let is_replaced = matches!(files.look(), Look::Replaced(_));
                assert_ne!(files.look() == Look::AsBefore, is_replaced, "{what}");
            };
        let changed = |look: &Look, path: &Path| *look == Look::Changed(path.to_owned());
        let written = |look: &Look, path: &Path| *look == Look::Written(path.to_owned());
        let write = |path: &Path| fs::write(path, "behind").unwrap();
        check("written", &write, &written);
        let put_back = |path: &Path| {
            let before = fs::metadata(path).unwrap().modified().unwrap();
            write(path);
            let file = File::options().write(true).open(path).unwrap();
            file.set_times(FileTimes::new().set_modified(before))
                .unwrap();
        };
        check("written, with the time put back", &put_back, &changed);
        let chmod = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        check("another mode", &chmod, &changed);
        let link = |path: &Path| {
            let other = path.with_extension("link");
            let _ = fs::remove_file(&other);
            fs::hard_link(path, &other).unwrap();
        };
        check("another name", &link, &changed);
        let grow = |path: &Path| fs::write(path, "longer than before").unwrap();
        check("grown", &grow, &|look, _| matches!(look, Look::Replaced(_)));
    }
}

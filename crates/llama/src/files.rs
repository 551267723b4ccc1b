//! The files of a loaded model. They are mapped, so a change of a file changes the weights that are computed with.
//!
//! Replacing a file by a rename is harmless: the mapping keeps the old file. Writing over a file in place, as `cp` does, is
//! not. If the file became shorter, the kernels' next read faults, which [`faults`] survives; if it kept its size nothing
//! faults, and only its modification time tells ([`Files::look`]). In either case the weights aren't trusted any more, and
//! nothing else is computed with them.

mod faults;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

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
    modified: Mutex<SystemTime>,
}

/// Whether the files have changed since they were opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    AsBefore,
    /// This file has the same size and a new modification time: only its bytes tell whether it was written to or just touched.
    Written(PathBuf),
    /// A file has another size or can't be examined: the text says which.
    Changed(String),
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

    /// Takes the files' modification times of now as good: their bytes were compared and haven't changed.
    pub fn accept_times(&self) {
        self.parts.iter().for_each(Part::accept_time);
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
            modified: Mutex::new(facts.modified()?),
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
            Err(error) => return Look::Changed(format!("{path} can't be looked at: {error}")),
        };
        if facts.len() != self.bytes {
            let (now, before) = (facts.len(), self.bytes);
            return Look::Changed(format!(
                "{path} was written over: it has {now} bytes, and had {before}"
            ));
        }
        match facts.modified() {
            Ok(modified) if modified == *self.modified() => Look::AsBefore,
            _ => Look::Written(self.path.clone()),
        }
    }

    fn accept_time(&self) {
        if let Ok(modified) = self.file.metadata().and_then(|facts| facts.modified()) {
            *self.modified() = modified;
        }
    }

    fn modified(&self) -> MutexGuard<'_, SystemTime> {
        self.modified.lock().unwrap_or_else(PoisonError::into_inner)
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

//! Records about model files in the data directory: which files passed a trial, and their checksums.
//!
//! A file that is new, or has changed, is first loaded by another process ([`weir_llama::try_out`]); later starts needn't do
//! that again. The records can be deleted at any time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_llama::gguf::{self, Gguf};
use weir_llama::{LoadError, ServeOptions, try_out};

/// The name of the records' file in the data directory.
const FILE: &str = "model-files.json";

/// The records, by the path of a model's first file.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    path: PathBuf,
    records: Mutex<BTreeMap<PathBuf, Record>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// The last trial that the file passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<Tried>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sums: Option<Sums>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tried {
    identity: Identity,
    /// The program's build and the options of the trial.
    with: String,
}

/// The checksums of a model's files, from the first time that they were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    identity: Identity,
    /// SHA-256 of each file, in hexadecimal digits.
    pub(crate) sha256: Vec<String>,
    /// The time of the first reading, in RFC 3339.
    pub(crate) at: String,
}

/// The facts by which a change of a model's files is noticed without reading their weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    parts: Vec<Part>,
    /// SHA-256 of the first file's header.
    head_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

/// The result of comparing a file's bytes with its record.
#[derive(Debug, PartialEq)]
pub(crate) enum Compared {
    /// There was no record.
    New,
    Same,
    /// The bytes differ, and so do size or time: the file was replaced or written to.
    Changed(Sums),
    /// The bytes differ, but size and time don't: the file was damaged.
    Damaged(Sums),
}

impl Sums {
    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }
}

impl Identity {
    pub(crate) fn of(path: &Path, head: &Gguf) -> Result<Self, LoadError> {
        let part = |path: PathBuf| {
            let facts = fs::metadata(&path).map_err(|error| LoadError::Unreadable {
                path: path.clone(),
                error,
            })?;
            Ok(Part {
                bytes: facts.len(),
                modified_seconds: facts.mtime(),
                modified_nanoseconds: facts.mtime_nsec(),
            })
        };
        let parts = gguf::parts(path, head)?.into_iter().map(part);
        Ok(Identity {
            parts: parts.collect::<Result<_, LoadError>>()?,
            head_sha256: head.head_sha256.clone(),
        })
    }
}

impl ModelFiles {
    /// Reads the records. If they can't be read, all files count as new.
    pub(crate) fn open(data: &Path) -> Self {
        let path = data.join(FILE);
        let records = match fs::read(&path).map(|json| serde_json::from_slice(&json)) {
            Ok(Ok(records)) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "what was known of model files can't be read");
                BTreeMap::new()
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was known of model files can't be read");
                BTreeMap::new()
            }
        };
        ModelFiles {
            path,
            records: Mutex::new(records),
        }
    }

    /// Checks a file before this process loads it: its header, and unless the records say that it passed, whether another
    /// process survives loading it.
    pub(crate) fn admit(&self, path: &Path, options: &ServeOptions) -> Result<Identity, LoadError> {
        let identity = Identity::of(path, &checked(path)?)?;
        let program = program(path)?;
        let options_text = serde_json::to_string(options).expect("plain data");
        let tried = Some(Tried {
            identity: identity.clone(),
            with: format!("{} {options_text}", build(&program)),
        });
        let known = self.records().get(path).map(|record| record.tried.clone());
        if known != Some(tried.clone()) {
            tracing::info!(path = %path.display(), "a file that isn't known is tried in another process first");
            try_out(&program, path, options)?;
            self.remember(path, |record| record.tried = tried);
        }
        Ok(identity)
    }

    /// Compares checksums with the record. Those of a new or replaced file become the record.
    pub(crate) fn compare(
        &self,
        path: &Path,
        identity: Identity,
        sha256: Vec<String>,
        now: Timestamp,
    ) -> Compared {
        let sums = Sums {
            identity,
            sha256,
            at: now.to_string(),
        };
        let (compared, sums) = match self.sums(path) {
            None => (Compared::New, sums),
            Some(known) if known.sha256 == sums.sha256 => {
                let at = known.at;
                (Compared::Same, Sums { at, ..sums })
            }
            Some(known) if known.identity == sums.identity => return Compared::Damaged(known),
            Some(known) => (Compared::Changed(known), sums),
        };
        if self.sums(path).as_ref() != Some(&sums) {
            self.remember(path, |record| record.sums = Some(sums));
        }
        compared
    }

    pub(crate) fn sums(&self, path: &Path) -> Option<Sums> {
        self.records().get(path)?.sums.clone()
    }

    /// The recorded checksums of a file, if its identity is still the recorded one.
    pub(crate) fn sums_of(&self, path: &Path, identity: &Identity) -> Option<Vec<String>> {
        let sums = self.sums(path)?;
        sums.is_of(identity).then_some(sums.sha256)
    }

    /// Changes a record. If the file can't be written, the change lasts until this process ends.
    fn remember(&self, path: &Path, change: impl FnOnce(&mut Record)) {
        let mut records = self.records();
        change(records.entry(path.to_owned()).or_default());
        if let Err(error) = self.write(&records) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "what is known of model files can't be written");
        }
    }

    fn write(&self, records: &BTreeMap<PathBuf, Record>) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // If the data directory was moved away while the server runs, don't make it anew: it could then not be moved back.
        if !folder.try_exists()? {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, records)?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads and checks a file's header.
pub(crate) fn checked(path: &Path) -> Result<Gguf, LoadError> {
    let head = Gguf::read(path)?;
    head.check().map_err(|reason| LoadError::Broken {
        path: path.to_owned(),
        reason,
    })?;
    Ok(head)
}

/// The path of this program, which runs the trials.
pub(crate) fn program(path: &Path) -> Result<PathBuf, LoadError> {
    std::env::current_exe().map_err(|error| LoadError::Trial {
        path: path.to_owned(),
        error,
    })
}

/// A text that differs between builds: another build may not survive a file that this one does.
fn build(program: &Path) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match fs::metadata(program) {
        Ok(facts) => format!("{version} {} {}", facts.len(), facts.mtime()),
        Err(_) => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(bytes: u64) -> Identity {
        Identity {
            parts: vec![Part {
                bytes,
                modified_seconds: 1,
                modified_nanoseconds: 2,
            }],
            head_sha256: "a".to_owned(),
        }
    }

    #[test]
    fn bytes_are_compared_with_those_of_the_first_time() {
        let data = tempfile::tempdir().unwrap();
        let path = Path::new("/models/a.gguf");
        // Each call stands for a process of its own.
        let compare = |bytes: u64, sum: &str| {
            let files = ModelFiles::open(data.path());
            files.compare(
                path,
                identity(bytes),
                vec![sum.to_owned()],
                Timestamp::UNIX_EPOCH,
            )
        };
        let was = |bytes: u64, sum: &str| Sums {
            identity: identity(bytes),
            sha256: vec![sum.to_owned()],
            at: "1970-01-01T00:00:00Z".to_owned(),
        };
        assert_eq!(compare(5, "x"), Compared::New);
        assert_eq!(compare(5, "x"), Compared::Same);
        // The file was only touched.
        assert_eq!(compare(6, "x"), Compared::Same);
        assert_eq!(compare(6, "y"), Compared::Damaged(was(6, "x")));
        assert_eq!(compare(6, "y"), Compared::Damaged(was(6, "x")));
        assert_eq!(compare(7, "y"), Compared::Changed(was(6, "x")));
        assert_eq!(compare(7, "y"), Compared::Same);
        let files = ModelFiles::open(data.path());
        assert_eq!(
            files.sums_of(path, &identity(7)),
            Some(vec!["y".to_owned()])
        );
        assert_eq!(files.sums_of(path, &identity(8)), None);
        // Records that can't be read count as none.
        fs::write(data.path().join(FILE), "{").unwrap();
        assert_eq!(compare(7, "z"), Compared::New);
    }

    #[test]
    fn what_can_not_be_written_is_known_all_the_same() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("file");
        fs::write(&file, "").unwrap();
        let files = ModelFiles::open(&file);
        let path = Path::new("/models/a.gguf");
        let sums = || vec!["x".to_owned()];
        let compared = files.compare(path, identity(5), sums(), Timestamp::UNIX_EPOCH);
        assert_eq!(compared, Compared::New);
        assert_eq!(files.sums_of(path, &identity(5)), Some(sums()));
    }
}

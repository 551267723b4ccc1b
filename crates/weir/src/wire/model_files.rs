//! What is remembered of model files, in the data directory: that they were tried, and what their bytes were.
//!
//! A file that isn't known, or has changed, is loaded by another process first ([`weir_llama::try_out`]); an ordinary start pays
//! nothing for that. What is remembered can be deleted at any time.

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

/// In the data directory.
const FILE: &str = "model-files.json";

/// The files that are known, by the path of a model's first one.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    path: PathBuf,
    records: Mutex<BTreeMap<PathBuf, Record>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// What was tried, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<Tried>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sums: Option<Sums>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tried {
    identity: Identity,
    /// The program and the options with which the file was tried.
    with: String,
}

/// The bytes of a model's files when they were first read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sums {
    identity: Identity,
    /// SHA-256 of each file.
    pub(crate) sha256: Vec<String>,
    /// When that was.
    pub(crate) at: String,
}

/// What tells a model's files from what they were before, without reading their weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    parts: Vec<Part>,
    /// SHA-256 of what the first file says before its weights.
    head_sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

/// What a file's bytes are, compared with what they were.
#[derive(Debug, PartialEq)]
pub(crate) enum Compared {
    /// Nothing was known of them.
    New,
    Same,
    /// The file was exchanged or written to since: at another time, or with another size.
    Changed(Sums),
    /// Size and time are what they were, and the bytes aren't.
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
    /// Reads what is remembered; where that can't be read, nothing is.
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

    /// Checks a file before this process loads it: what its head says, and unless it is known, whether another process
    /// survives loading it.
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

    /// Compares bytes with those that are remembered. Those that are new, or belong to a file that was exchanged, are
    /// remembered from now on.
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

    /// The bytes of a file, if they were read when it was what it is now.
    pub(crate) fn sums_of(&self, path: &Path, identity: &Identity) -> Option<Vec<String>> {
        let sums = self.sums(path)?;
        sums.is_of(identity).then_some(sums.sha256)
    }

    /// What can't be written is known until this process ends.
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
        // A data directory that was moved away while the server runs must find its place empty when it comes back.
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

/// A file's head, if nothing in it is wrong.
pub(crate) fn checked(path: &Path) -> Result<Gguf, LoadError> {
    let head = Gguf::read(path)?;
    head.check().map_err(|reason| LoadError::Broken {
        path: path.to_owned(),
        reason,
    })?;
    Ok(head)
}

/// This program, which tries files.
pub(crate) fn program(path: &Path) -> Result<PathBuf, LoadError> {
    std::env::current_exe().map_err(|error| LoadError::Trial {
        path: path.to_owned(),
        error,
    })
}

/// Tells one build from another: what one survives another needn't.
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
        // Each row is a process of its own.
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
        // It was touched.
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
        // What can't be read isn't known.
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

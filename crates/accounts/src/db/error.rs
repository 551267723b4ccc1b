//! Errors of a database, and what can be done about each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::spill::SpillError;

/// The database failed: it can't be reached, is locked or full, or refused a statement that should have worked. The
/// text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database failed: {text}")]
pub struct StoreError {
    text: Arc<str>,
    kind: Kind,
    trouble: Trouble,
}

/// The kind of trouble with the database. Its words reveal nothing and may be shown to anyone, as `/ready` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Full,
    ReadOnly,
    /// The database's files were removed, moved or replaced.
    Moved,
    /// The database doesn't answer.
    Unreachable,
    /// Another process has locked the database.
    Locked,
    Damaged,
    /// Another node has taken this process for dead.
    CutOff,
    Other,
}

impl Trouble {
    pub fn plainly(self) -> &'static str {
        match self {
            Trouble::Full => "the database's disk is full",
            Trouble::ReadOnly => "the database can only be read",
            Trouble::Moved => "the database's files are not where they were",
            Trouble::Unreachable => "the database does not answer",
            Trouble::Locked => "the database is locked by another process",
            Trouble::Damaged => "the database is damaged",
            Trouble::CutOff => "this node was cut off from the database",
            Trouble::Other => "the database can't be written",
        }
    }
}

/// How much an error spoils, and so what can be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only this statement was refused; a savepoint undoes it.
    Statement,
    /// A conflict between transactions (such as a deadlock): this one was rolled back, and may succeed when run again.
    Contended,
    /// The connection is gone: the same transaction may succeed on another one.
    Lost,
    /// The connection can't be trusted any more, and a new one would fail as well for now.
    Failed,
}

impl StoreError {
    pub(super) fn new(text: impl Into<Arc<str>>, kind: Kind) -> Self {
        StoreError {
            text: text.into(),
            kind,
            trouble: Trouble::Other,
        }
    }

    pub(super) fn with(self, trouble: Trouble) -> Self {
        StoreError { trouble, ..self }
    }

    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    pub(crate) fn moved(text: impl Into<Arc<str>>) -> Self {
        StoreError::new(text, Kind::Failed).with(Trouble::Moved)
    }

    pub(crate) fn slow(waited: Duration) -> Self {
        let text = format!("no answer within {waited:?}");
        StoreError::new(text, Kind::Failed).with(Trouble::Unreachable)
    }

    pub(crate) fn cut_off() -> Self {
        StoreError::contradiction("this node was taken for dead").with(Trouble::CutOff)
    }

    /// An error for data or requests that contradict this crate's assumptions.
    pub(crate) fn contradiction(text: impl Into<Arc<str>>) -> Self {
        StoreError::new(text, Kind::Statement)
    }

    pub(crate) fn closed() -> Self {
        StoreError::contradiction("it is closed")
    }

    pub(crate) fn spoils_transaction(&self) -> bool {
        self.kind != Kind::Statement
    }

    pub(crate) fn is_contention(&self) -> bool {
        self.kind == Kind::Contended
    }

    pub(crate) fn is_lost_connection(&self) -> bool {
        self.kind == Kind::Lost
    }

    /// Whether a COMMIT that fails with this error may have succeeded nevertheless.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Failed)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another weir server uses {}", .0.display())]
    InUse(PathBuf),
    #[error("a weir server uses {} under another name; use that name", .0.display())]
    OtherName(PathBuf),
    #[error("{} has a second name (a hard link), and SQLite would keep a log for each: remove one of them", .0.display())]
    HardLinked(PathBuf),
    #[error("there is no database at {}", .0.display())]
    Missing(PathBuf),
    #[error(
        "the database {} is missing or empty, but there was one, which has left {1}. Restore it from a backup; \
         or, to start anew with empty books, remove {1} first",
        path.display(), listed(traces)
    )]
    Lost { path: PathBuf, traces: Vec<PathBuf> },
    #[error(
        "the database has schema {found}, this weir reads {known}: `weir migrate`, or the next start of the server, brings it up to date"
    )]
    Older { found: i64, known: i64 },
    #[error("the database has schema {found}, this weir knows up to {known}: use a newer weir")]
    Newer { found: i64, known: i64 },
    #[error("this user has no permission to {what} {}: run weir as the user that it belongs to, or change its owner", path.display())]
    NoPermission { path: PathBuf, what: &'static str },
    #[error("can't open {}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Spill(#[from] SpillError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether the message says which database it is about.
    pub fn names_place(&self) -> bool {
        match self {
            OpenError::InUse(_)
            | OpenError::OtherName(_)
            | OpenError::HardLinked(_)
            | OpenError::Missing(_)
            | OpenError::Lost { .. }
            | OpenError::NoPermission { .. }
            | OpenError::File { .. } => true,
            OpenError::Older { .. }
            | OpenError::Newer { .. }
            | OpenError::Spill(_)
            | OpenError::Store(_) => false,
        }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" and ")
}

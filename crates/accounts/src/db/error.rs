//! What goes wrong with a database, and what can be done about it.

use std::path::PathBuf;
use std::sync::Arc;

use super::postgres;

/// The database failed: it can't be reached, is locked or full, or refused what should have been
/// possible. The text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database failed: {text}")]
pub struct StoreError {
    text: Arc<str>,
    kind: Kind,
}

/// How much an error has spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One statement was refused; a savepoint undoes it.
    Statement,
    /// Transactions were in each other's way, and this one was undone: the same again may do.
    Contended,
    /// The connection is gone: the same on another one may do.
    Lost,
    /// The connection can't be trusted any more, and another one would do no better now.
    Failed,
}

impl StoreError {
    pub(super) fn new(text: impl Into<Arc<str>>, kind: Kind) -> Self {
        StoreError {
            text: text.into(),
            kind,
        }
    }

    /// What the database holds or was asked for contradicts what this crate takes for granted.
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

    /// Whether a COMMIT that fails like this may have been done all the same.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Failed)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Io(_) => Kind::Lost,
            sqlx::Error::Database(refused) => postgres::kind(&**refused).unwrap_or(Kind::Failed),
            _ => Kind::Failed,
        };
        StoreError::new(error.to_string(), kind)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another weir server uses {}", .0.display())]
    InUse(PathBuf),
    #[error("the database has schema {found}, this weir knows up to {known}: use a newer weir")]
    Newer { found: i64, known: i64 },
    #[error("can't open {}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

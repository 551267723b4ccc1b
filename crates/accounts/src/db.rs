//! The database: the one place that names a driver.

use std::path::PathBuf;
use std::sync::Arc;

/// The database failed: it can't be reached, is locked or full, or refused what should have been
/// possible. The text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database failed: {text}")]
pub struct StoreError {
    text: Arc<str>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another weir server uses {}", .0.display())]
    InUse(PathBuf),
    #[error("the database has schema {found}, this weir knows up to {known}: use a newer one")]
    Newer { found: i64, known: i64 },
    #[error("can't open {}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

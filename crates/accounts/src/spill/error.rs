//! Why a note isn't kept.

use std::sync::Arc;

/// The note isn't on the disk.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the end of a request can't be kept beside the database: {0}")]
pub struct SpillError(Arc<str>);

impl SpillError {
    pub(crate) fn new(cause: impl ToString) -> Self {
        SpillError(cause.to_string().into())
    }
}

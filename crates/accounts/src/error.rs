//! Why an administrative act is refused.

use crate::db::StoreError;
use crate::ids::KeyId;

/// Why an administrative act was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    #[error("there is no {what} {name:?}")]
    NotFound { what: &'static str, name: String },
    #[error("there is an account named {0:?} already")]
    NameTaken(String),
    #[error("{message}")]
    Invalid {
        /// The field's name in the administrative API.
        field: &'static str,
        message: String,
    },
    /// The account can't be deleted: it has open requests, or a balance.
    #[error("{0}")]
    NotEmpty(String),
    /// The text is the rule that a key must keep, after "has".
    #[error("an idempotency key has {0}")]
    BadIdempotencyKey(String),
    #[error("the idempotency key {0:?} was used for something else")]
    IdempotencyConflict(String),
    /// The key's secret was shown when it was made, and isn't stored.
    #[error(
        "this idempotency key has made the key {0} before, and a secret is shown once: rotate it for a new one, or revoke it"
    )]
    KeyMade(KeyId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdminError {
    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        AdminError::Invalid { field, message }
    }

    /// A time relative to now can't be counted on while the clock isn't trusted.
    pub(crate) fn untrusted_clock(field: &'static str) -> Self {
        let message = "the clock is more than a week away from the newest time in the books: set it, or say that it is right \
             with `weir clock accept`";
        AdminError::invalid(field, message)
    }
}

//! Accounts: who holds a balance.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::db::StoreError;
use crate::money::Nanos;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    /// What was paid in, less what was charged.
    pub posted: Nanos,
    /// The part of it that open requests hold.
    pub held: Nanos,
    /// What a new request can hold.
    pub available: Nanos,
    pub created_at: Timestamp,
}

/// Why an administrative act was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    #[error("there is no {what} {name:?}")]
    NotFound { what: &'static str, name: String },
    #[error("there is an account named {0:?} already")]
    NameTaken(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the idempotency key {0:?} was used for something else")]
    IdempotencyConflict(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

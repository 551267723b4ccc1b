//! API keys: `sk_<public>_<secret>`. Only a hash of the secret is stored.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::account::AccountId;
use crate::db::StoreError;

const PUBLIC_LEN: usize = 12;
/// 43 characters of 62 are 256 bits.
const SECRET_LEN: usize = 43;
/// Longer texts are refused unread.
const PART_MAX: usize = 64;

/// A secret that can't be displayed, logged or serialized.
pub struct Secret(String);

impl Secret {
    /// The text itself: to show it once to whoever made the key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The public part of a key: what it's called in lists, logs and usage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A key that was just made; its secret is never seen again.
#[derive(Debug)]
pub struct NewKey {
    pub id: KeyId,
    /// The whole key, `sk_<public>_<secret>`.
    pub secret: Secret,
}

/// What a key may do, beyond being its account's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    pub name: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// `None` is every model.
    pub models: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub id: KeyId,
    pub account: AccountId,
    pub name: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub models: Option<Vec<String>>,
}

/// Who asks: an account, by one of its keys. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: AccountId,
    pub key: KeyId,
    /// The only models that the key may use; `None` is every model.
    pub models: Option<Arc<[String]>>,
}

impl Caller {
    pub fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// Malformed, unknown, revoked or expired: callers are not told which.
    #[error("the key is not valid")]
    Rejected,
    #[error(transparent)]
    Store(#[from] StoreError),
}

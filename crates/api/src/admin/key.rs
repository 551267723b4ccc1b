use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limits, Time, Usd, given};

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Key {
    /// The public part of the key.
    pub id: String,
    pub account: String,
    pub name: Option<String>,
    pub role: Role,
    /// The only models it may use; null is every model.
    pub models: Option<Vec<String>>,
    /// Its own limits, beside those of its account.
    pub limits: Limits,
    pub caps: Caps,
    pub created_at: Time,
    /// About: it is written at most once a minute.
    pub last_used_at: Option<Time>,
    pub expires_at: Option<Time>,
    pub rotated_at: Option<Time>,
    /// Until when the secret before the last rotation is accepted, too.
    pub old_secret_until: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// An API key, and what its requests have cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyDetail {
    #[serde(flatten)]
    pub key: Key,
    pub spent: Spent,
}

/// By UTC; weeks begin on Monday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Spent {
    pub total: Usd,
    pub month: Usd,
    pub week: Usd,
    pub day: Usd,
    /// What its open requests hold.
    pub held: Usd,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Uses models, and administers nothing. The others administer, and use no models.
    #[default]
    Inference,
    /// May do everything to all accounts and keys.
    Admin,
    /// May read everything, and move money.
    Billing,
    /// May read everything.
    Viewer,
}

/// The most that a key's requests may cost, by UTC; null is no cap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct Caps {
    pub total: Option<Usd>,
    pub month: Option<Usd>,
    pub day: Option<Usd>,
}

/// A key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct NewKey {
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,
    /// It never changes.
    pub role: Role,
    pub models: Option<Vec<String>>,
    pub expires_at: Option<Time>,
    pub limits: Limits,
    pub caps: Caps,
}

/// What to change of a key; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct KeyUpdate {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub name: Option<Option<String>>,
    /// Null is never.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Time>")]
    pub expires_at: Option<Option<Time>>,
    /// Null is every model.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Vec<String>>")]
    pub models: Option<Option<Vec<String>>>,
    /// All of them: what is absent in here, or null, is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<Option<Limits>>,
    /// All of them: what is absent in here, or null, is no cap.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Caps>")]
    pub caps: Option<Option<Caps>>,
}

/// How a key gets a new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Rotation {
    /// How long the old secret is accepted beside the new one, up to 30 days.
    #[schemars(range(max = 2_592_000))]
    pub grace_seconds: u32,
}

/// A new secret: this is the only time that it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeySecret {
    pub id: String,
    /// The whole key.
    pub key: String,
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

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
    /// The only models that the key may use; null means every model.
    pub models: Option<Vec<String>>,
    /// The key's own limits, which apply in addition to those of its account.
    pub limits: Limits,
    pub caps: Caps,
    pub created_at: Time,
    /// Approximate: updated at most once a minute.
    pub last_used_at: Option<Time>,
    pub expires_at: Option<Time>,
    pub rotated_at: Option<Time>,
    /// Until this time, the secret from before the last rotation is accepted as well.
    pub old_secret_until: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// An API key, and the cost of its requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyDetail {
    #[serde(flatten)]
    pub key: Key,
    pub spent: Spent,
}

/// The cost of the key's requests, by UTC; weeks begin on Monday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Spent {
    pub total: Usd,
    pub month: Usd,
    pub week: Usd,
    pub day: Usd,
    /// The amount that the key's open requests hold.
    pub held: Usd,
}

/// The purpose of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May use models, and may not administer. Keys of the other roles administer, and can't use models.
    #[default]
    Inference,
    /// May do everything, to all accounts and keys.
    Admin,
    /// May read everything, and move money.
    Billing,
    /// May read everything.
    Viewer,
}

/// The most that a key's requests may cost, by UTC; null means no cap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct Caps {
    pub total: Option<Usd>,
    pub month: Option<Usd>,
    pub day: Option<Usd>,
}

/// A key to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct NewKey {
    #[schemars(length(min = 1, max = 64))]
    pub name: Option<String>,
    /// A key's role never changes.
    pub role: Role,
    pub models: Option<Vec<String>>,
    pub expires_at: Option<Time>,
    pub limits: Limits,
    pub caps: Caps,
}

/// Changes to a key; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct KeyUpdate {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub name: Option<Option<String>>,
    /// Null means never.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Time>")]
    pub expires_at: Option<Option<Time>>,
    /// Null means every model.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Vec<String>>")]
    pub models: Option<Option<Vec<String>>>,
    /// Replaces all limits. A limit that is absent here, or null, is no limit.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<Option<Limits>>,
    /// Replaces all caps. A cap that is absent here, or null, is no cap.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Caps>")]
    pub caps: Option<Option<Caps>>,
}

/// The replacement of a key's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Rotation {
    /// How long the old secret is still accepted, in seconds, up to 30 days.
    #[schemars(range(max = 2_592_000))]
    pub grace_seconds: u32,
}

/// A new secret. It is shown only this once.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeySecret {
    pub id: String,
    /// The complete key, with its secret.
    pub key: String,
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

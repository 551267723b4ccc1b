use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Time, Usd, given};

/// An account: the holder of a balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Account {
    pub id: String,
    pub name: String,
    /// All payments and promotional credit, minus charges and expired promotional credit.
    pub balance: Usd,
    /// The part of the balance that open requests hold.
    pub held: Usd,
    /// The amount that a new request can hold, including the credit limit.
    pub available: Usd,
    /// The part of `available` that is promotional credit.
    pub promo: Usd,
    /// How far below zero the balance without promotional credit may go.
    pub credit_limit: Usd,
    /// The event `balance.low` is sent when the balance plus the credit limit falls below this.
    pub low_balance: Option<Usd>,
    /// A tier set for this account, instead of the one that its top-ups give.
    pub tier: Option<Tier>,
    /// Limits set for this account; each replaces that of the tier.
    pub limits: Limits,
    /// Limits set for single models, by the model's id; each replaces that of `limits`.
    pub model_limits: BTreeMap<String, Limits>,
    pub suspended: Option<Suspension>,
    pub created_at: Time,
    /// A deleted account can't be used or changed. Its name has its id appended, and its records stay.
    pub deleted_at: Option<Time>,
}

/// The time and the reason of an account's suspension: its requests are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Suspension {
    pub since: Time,
    pub reason: String,
}

/// The level of an account's rate limits, by the amount that it pays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    T1,
    T2,
    T3,
    T4,
    T5,
}

/// Rate limits; null means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct Limits {
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u32>,
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<u64>,
    #[schemars(range(min = 1))]
    pub concurrent_requests: Option<u32>,
}

/// An account to create.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewAccount {
    /// 1 to 64 letters, digits and `.` `_` `-` `@` `+`, beginning with a letter or digit, and not with `acct_` or `sk_`.
    pub name: String,
}

/// Changes to an account; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct AccountUpdate {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Never less than the part of it that is owed or held already.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Usd")]
    pub credit_limit: Option<Usd>,
    /// Null turns the warning off.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Usd>")]
    pub low_balance: Option<Option<Usd>>,
    /// Null means the tier that the top-ups give.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Tier>")]
    pub tier: Option<Option<Tier>>,
    /// Replaces all limits. A limit that is absent here, or null, is that of the tier.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<Option<Limits>>,
    /// Replaces all limits of single models, by the model's id, for at most 100 models. A limit that is absent here, or
    /// null, is that of `limits`, or else of the tier.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<BTreeMap<String, Limits>>")]
    pub model_limits: Option<Option<BTreeMap<String, Limits>>>,
    /// New requests are refused, running ones finish. Null resumes the account.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<NewSuspension>")]
    pub suspended: Option<Option<NewSuspension>>,
}

/// The reason for a suspension.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewSuspension {
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Time, Usd, given};

/// Who holds a balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Account {
    pub id: String,
    pub name: String,
    /// What was paid in and given, less what was charged and has expired.
    pub balance: Usd,
    /// The part of it that open requests hold.
    pub held: Usd,
    /// What a new request can hold, with the credit limit.
    pub available: Usd,
    /// The part of what is available that is promotional credit.
    pub promo: Usd,
    /// How far below zero the rest may go.
    pub credit_limit: Usd,
    /// Warn when less than this is available.
    pub low_balance: Option<Usd>,
    /// Instead of the tier that the top-ups give.
    pub tier: Option<Tier>,
    /// Instead of the tier's limits, if there is any.
    pub limits: Limits,
    /// Instead of those, for single models: by the model's id.
    pub model_limits: BTreeMap<String, Limits>,
    pub suspended: Option<Suspension>,
    pub created_at: Time,
    /// Nothing can be done with a deleted account; its name has its id behind it, and its records stay.
    pub deleted_at: Option<Time>,
}

/// Since when, and why, requests of an account are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Suspension {
    pub since: Time,
    pub reason: String,
}

/// How much an account may use, by what it pays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    T1,
    T2,
    T3,
    T4,
    T5,
}

/// What may be used; null is no limit.
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

/// An account to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewAccount {
    /// 1 to 64 letters, digits and `.` `_` `-` `@` `+`, beginning with a letter or digit, and not with `acct_` or `sk_`.
    pub name: String,
}

/// What to change of an account; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
pub struct AccountUpdate {
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Never less than what is owed or held of it already.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Usd")]
    pub credit_limit: Option<Usd>,
    /// Null is no warning.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Usd>")]
    pub low_balance: Option<Option<Usd>>,
    /// Null is the tier of the top-ups.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Tier>")]
    pub tier: Option<Option<Tier>>,
    /// All of them. One that is absent in here, or null, is that of the tier.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<Option<Limits>>,
    /// All of them, by the model's id, for at most 100 models. A limit that is absent in one, or null, is that of `limits`, or of the tier.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<BTreeMap<String, Limits>>")]
    pub model_limits: Option<Option<BTreeMap<String, Limits>>>,
    /// New requests are refused, those that run finish. Null resumes.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Option<NewSuspension>")]
    pub suspended: Option<Option<NewSuspension>>,
}

/// Why an account is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewSuspension {
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

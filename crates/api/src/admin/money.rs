use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Time, Usd};

/// Money that was paid in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewCredit {
    /// More than 0.
    pub amount: Usd,
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub reason: String,
}

/// Promotional credit: used before cash, and gone when it expires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewPromo {
    /// More than 0.
    pub amount: Usd,
    pub expires_at: Time,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// Corrects a balance by cash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewAdjustment {
    /// Less than 0 takes away, but never more than the credit limit covers.
    pub amount: Usd,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// Gives back what a request cost, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewRefund {
    /// Its id: the header `x-request-id` of its answer.
    pub request: String,
    /// Which attempt of it; 1 if absent.
    #[serde(default = "first")]
    pub attempt: u32,
    /// All that was not refunded before if absent.
    #[serde(default)]
    pub amount: Option<Usd>,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

fn first() -> u32 {
    1
}

/// Money that was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Movement {
    /// The ledger's transaction.
    pub transaction: i64,
    pub account: String,
    /// What the account got; less than 0 if it was taken away.
    pub amount: Usd,
    /// The account's, right after.
    pub balance: Usd,
    pub at: Time,
    /// Whether the idempotency key had been used: then nothing has changed, and this is the first result.
    pub replayed: bool,
}

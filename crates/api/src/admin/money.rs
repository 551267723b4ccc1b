use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Time, Usd};

/// A payment into the account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewCredit {
    /// More than 0.
    pub amount: Usd,
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub reason: String,
}

/// Promotional credit: used before cash, and lost when it expires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewPromo {
    /// More than 0.
    pub amount: Usd,
    pub expires_at: Time,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// A correction of an account's cash balance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewAdjustment {
    /// A negative amount takes money away, but never more than the credit limit covers.
    pub amount: Usd,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// A refund of a request's cost, or of part of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct NewRefund {
    /// The request's id: the header `x-request-id` of its answer.
    pub request: String,
    /// The attempt of the request; 1 if absent.
    #[serde(default = "first")]
    pub attempt: u32,
    /// Everything that wasn't refunded before, if absent.
    #[serde(default)]
    pub amount: Option<Usd>,
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

fn first() -> u32 {
    1
}

/// A booked movement of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Movement {
    /// The number of the ledger's transaction.
    pub transaction: i64,
    pub account: String,
    /// The amount that the account received; negative if it was taken away.
    pub amount: Usd,
    /// The account's balance right after.
    pub balance: Usd,
    pub at: Time,
    /// Whether the idempotency key had been used before: then nothing has changed, and this is the first result.
    pub replayed: bool,
}

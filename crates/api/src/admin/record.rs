use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Time, Usd};

/// The charge for one attempt of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UsageRecord {
    pub id: i64,
    pub account: String,
    pub key: String,
    pub request: String,
    pub attempt: u32,
    pub model: String,
    pub prompt_tokens: u64,
    /// The part of the prompt tokens that came from the prefix cache.
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    /// The part of the completion tokens that was reasoning.
    pub reasoning_tokens: u64,
    /// The price at admission, in 0.0001 USD per million tokens.
    pub input_price: i64,
    pub cached_price: i64,
    pub output_price: i64,
    pub cost: Usd,
    /// The part of the cost that promotional credit paid.
    pub promo: Usd,
    /// `success`, `disconnected`, `engine_failed` or `expired`.
    pub outcome: &'static str,
    /// Source of the token counts: `engine`, `upstream` or `estimated`.
    pub source: &'static str,
    pub started_at: Time,
    pub ended_at: Time,
}

/// The usage of one model by one key, at one price, on one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UsageDay {
    /// A UTC day, such as "2027-01-31".
    pub day: String,
    pub account: String,
    pub key: String,
    pub model: String,
    pub requests: u64,
    pub prompt_tokens: u64,
    /// The part of the prompt tokens that came from the prefix cache.
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    /// The part of the completion tokens that was reasoning.
    pub reasoning_tokens: u64,
    /// The price, in 0.0001 USD per million tokens.
    pub input_price: i64,
    pub cached_price: i64,
    pub output_price: i64,
    pub cost: Usd,
    /// The part of the cost that promotional credit paid.
    pub promo: Usd,
}

/// A transaction of the ledger. Its entries sum to zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Transaction {
    pub id: i64,
    pub at: Time,
    /// The kind of transaction, such as `credit`, `hold` or `settle`.
    pub kind: String,
    pub reason: Option<String>,
    /// The actor, if the transaction isn't a request's.
    pub actor: Option<String>,
    /// The request that the transaction belongs to, or that it refunds.
    pub request: Option<String>,
    /// The account's balance right after.
    pub balance: Usd,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Entry {
    /// An account of the books, such as `wallet:acct_…` or `revenue`.
    pub book: String,
    pub amount: Usd,
}

/// An administrative act.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AuditRecord {
    pub id: i64,
    pub at: Time,
    /// `key:<id>`, `cli:<user>` or `system`.
    pub actor: String,
    /// The kind of act, such as `account.update` or `key.rotate`.
    pub act: String,
    pub account: String,
    /// The id of the object that was changed: an account, a key or a transaction.
    pub target: String,
    /// The object before the act.
    pub before: Value,
    /// The object after the act.
    pub after: Value,
}

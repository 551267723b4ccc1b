//! Usage: one record for each attempt that was settled.

use jiff::Timestamp;

use crate::key::KeyId;
use crate::ledger::settle::{Outcome, Source};
use crate::money::{Counts, Nanos, Price};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    pub request: String,
    pub attempt: u32,
    pub key: KeyId,
    pub model: String,
    /// The price at admission.
    pub price: Price,
    pub counts: Counts,
    pub cost: Nanos,
    pub outcome: Outcome,
    pub source: Source,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

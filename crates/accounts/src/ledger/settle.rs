//! How a hold ends.

use jiff::Timestamp;

use crate::db::StoreError;
use crate::ledger::hold::Hold;
use crate::money::{Counts, Nanos};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// What is charged.
    pub counts: Counts,
    pub outcome: Outcome,
    pub source: Source,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The client hung up.
    Disconnected,
    EngineFailed,
    /// Nobody settled the hold: its process died or lost it.
    Expired,
}

/// Where counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Engine,
    Upstream,
    Estimated,
}

/// The hold is still open, and can be settled again.
#[derive(Debug, thiserror::Error)]
#[error("the hold was not settled: {error}")]
pub struct SettleError {
    pub hold: Hold,
    pub error: StoreError,
}

/// What was found open at boot, or overdue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Holds charged for what they had delivered.
    pub settled: u64,
    /// Holds that had delivered nothing.
    pub released: u64,
    pub charged: Nanos,
}

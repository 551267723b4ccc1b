//! The ledger: append-only, double entry, every transaction sums to zero.

pub(crate) mod hold;
pub(crate) mod settle;

use jiff::Timestamp;

use crate::account::AccountId;
use crate::money::Nanos;

/// A credit, as it was first made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credited {
    pub account: AccountId,
    pub amount: Nanos,
    /// The account's balance right after it.
    pub posted: Nanos,
    pub at: Timestamp,
    /// Whether the idempotency key had been used before, so that nothing was done now.
    pub replayed: bool,
}

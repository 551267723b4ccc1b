//! How far the checkpoints of a hold are durable.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many checkpoints of a hold were asked for, and up to which one they are durable, in the database or beside it.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    asked: AtomicU64,
    durable: AtomicU64,
}

impl Checkpoints {
    /// The checkpoint with this number is durable, and with it all before.
    pub(crate) fn reach(&self, number: u64) {
        self.durable.fetch_max(number, Ordering::Relaxed);
    }

    /// The number of the next checkpoint, from 1.
    pub(crate) fn next(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether the last checkpoint is durable.
    pub(crate) fn are_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed) >= self.asked.load(Ordering::Relaxed)
    }
}

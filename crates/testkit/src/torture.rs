//! Nodes that serve a seeded mix of requests until they are killed, and report each of their acts when it happens.
//!
//! `src/bin/torture` is such a node; `tests/torture` kills nodes again and again, and checks the books.

mod fact;
pub mod node;
mod payment;
mod random;

pub use self::fact::{Fact, Prices};
pub use self::payment::Payment;
pub use self::random::Random;

/// The interval of checkpoints: short, so that a node's short life has some.
pub const CHECKPOINT_EVERY: std::time::Duration = std::time::Duration::from_millis(4);
/// The accounts, which all nodes of a database share.
pub const ACCOUNTS: [&str; 3] = ["rich", "modest", "poor"];
/// The place in a node itself where it may die, besides those in the ledger: just after a text was delivered.
pub const MID_STREAM: &str = "mid-stream";

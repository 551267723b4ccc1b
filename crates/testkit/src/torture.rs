//! Nodes that serve a seeded mix of requests until they are killed, and say what they do while they do it.
//!
//! `src/bin/torture` is such a node; `tests/torture.rs` kills it again and again, and checks the books.

mod fact;
pub mod node;
mod payment;
mod random;

pub use self::fact::{Fact, Prices};
pub use self::payment::Payment;
pub use self::random::Random;

/// How often the tokens that were delivered become durable: some of a node's short life.
pub const CHECKPOINT_EVERY: std::time::Duration = std::time::Duration::from_millis(4);
/// Accounts that all nodes of a database share.
pub const ACCOUNTS: [&str; 3] = ["rich", "modest", "poor"];
/// Where a node itself may die, beside the places of the ledger: a text was delivered just now.
pub const MID_STREAM: &str = "mid-stream";

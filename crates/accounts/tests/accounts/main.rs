//! Accounts on a real database.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod admin;
mod books;
mod caps;
mod clock;
mod cluster;
mod deletion;
mod file;
mod fixture;
mod health;
mod holds;
mod keys;
mod model;
mod movements;
mod opening;
mod promo_model;
mod reading;
mod recovery;
mod reports;
mod spill;
mod webhooks;
mod writer;

/// These tests run on SQLite; `tests/postgres` has the same ones on PostgreSQL.
pub(crate) const POSTGRES: bool = false;

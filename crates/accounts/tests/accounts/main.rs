//! Accounts on a real database.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod books;
mod cluster;
mod file;
mod fixture;
mod holds;
mod keys;
mod model;
mod opening;
mod recovery;
mod writer;

/// These run on SQLite; `tests/postgres` has the same on PostgreSQL.
pub(crate) const POSTGRES: bool = false;

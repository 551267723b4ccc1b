//! Accounts on a real database.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod books;
mod fixture;
mod holds;
mod keys;
mod model;
mod opening;
mod recovery;
mod writer;

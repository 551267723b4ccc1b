//! Accounts on a real database.

mod books;
mod fixture;
mod holds;
mod keys;
mod model;
mod opening;
mod recovery;
mod writer;

//! Accounts, API keys, the ledger and usage.
//!
//! The only crate with SQL: [`Accounts`] is all that others see of the database. It knows no HTTP
//! and no engines, and reads no clock: the time is an argument.
#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod account;
mod db;
mod key;
mod ledger;
mod money;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

pub use crate::account::{Account, AccountId, AdminError};
pub use crate::db::{OpenError, StoreError};
pub use crate::key::{Caller, KeyError, KeyId, KeyInfo, KeyOptions, NewKey, Secret};
pub use crate::ledger::Credited;
pub use crate::ledger::hold::{Hold, HoldError, NewHold, PendingHold};
pub use crate::ledger::settle::{Outcome, Recovered, SettleError, Settlement, Source};
pub use crate::money::{AmountError, Counts, Nanos, Price};
pub use crate::usage::UsageRecord;

/// Who opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves requests. One at a time: a lock file beside the database keeps a second one off.
    Server,
    /// The command line: may read and write beside a running server.
    Tool,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// The file of the database; created, with its folder, if it isn't there.
    pub database: PathBuf,
    pub role: Role,
    /// The name of this node in holds; each process adds a part of its own.
    pub node: String,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// Writes that may wait; a hold beyond it is refused.
    pub queue: usize,
}

impl Options {
    pub fn new(database: impl Into<PathBuf>, role: Role) -> Self {
        Options {
            database: database.into(),
            role,
            node: "local".to_owned(),
            busy_timeout: Duration::from_secs(5),
            queue: 4096,
        }
    }
}

/// The accounts, keys, ledger and usage in one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {}

impl Accounts {
    /// Creates the database if needed and brings its schema up to date. Refuses a newer schema.
    pub async fn open(options: Options, now: Timestamp) -> Result<Accounts, OpenError> {
        todo!()
    }

    /// Writes what waits, then closes. What is asked afterwards is a [`StoreError`].
    pub async fn close(&self) {
        todo!()
    }

    /// Names are unique.
    pub async fn add_account(&self, name: &str, now: Timestamp) -> Result<Account, AdminError> {
        todo!()
    }

    /// All accounts, by name.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        todo!()
    }

    pub async fn account(&self, name_or_id: &str) -> Result<Account, AdminError> {
        todo!()
    }

    /// Pays in. The same idempotency key again changes nothing and returns the first result.
    pub async fn credit(
        &self,
        account: &AccountId,
        amount: Nanos,
        idempotency_key: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Credited, AdminError> {
        todo!()
    }

    pub async fn add_key(
        &self,
        account: &AccountId,
        name: Option<&str>,
        now: Timestamp,
    ) -> Result<NewKey, AdminError> {
        todo!()
    }

    pub async fn add_key_with(
        &self,
        account: &AccountId,
        options: KeyOptions,
        now: Timestamp,
    ) -> Result<NewKey, AdminError> {
        todo!()
    }

    /// Oldest first.
    pub async fn keys(&self, account: &AccountId) -> Result<Vec<KeyInfo>, StoreError> {
        todo!()
    }

    /// Revokes for good; revoking again changes nothing.
    pub async fn revoke_key(&self, id: &str, now: Timestamp) -> Result<KeyInfo, AdminError> {
        todo!()
    }

    /// Reads the database each time, so that a revoked key is refused at once.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, KeyError> {
        todo!()
    }

    /// Newest first.
    pub async fn usage(
        &self,
        account: &AccountId,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        todo!()
    }

    /// Asks the writer for a hold at once. Nothing may be released to the client before it is
    /// [durable](PendingHold::durable).
    pub fn hold(&self, new: NewHold) -> Result<PendingHold, HoldError> {
        todo!()
    }

    /// Holds more. If it fails, the hold is what it was.
    pub async fn extend(
        &self,
        hold: &mut Hold,
        more: Nanos,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        todo!()
    }

    /// Notes what was delivered, to be charged if this process dies. Written soon, best effort.
    pub fn checkpoint(&self, hold: &Hold, counts: Counts, now: Timestamp) {
        todo!()
    }

    /// Charges, writes the usage record and frees the rest, durably. Returns what was charged.
    pub async fn settle(&self, hold: Hold, settlement: Settlement) -> Result<Nanos, SettleError> {
        todo!()
    }

    /// Frees the hold of an attempt that never started: no charge, no usage record.
    pub async fn release(&self, hold: Hold, now: Timestamp) -> Result<(), SettleError> {
        todo!()
    }

    /// At boot: ends the open holds of dead processes, and overdue ones.
    pub async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        todo!()
    }

    /// Now and then: ends overdue holds, of which nothing was heard for their whole lifetime.
    pub async fn expire(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        todo!()
    }

    /// Recomputes all balances from the entries and names each difference.
    pub async fn verify(&self) -> Result<Vec<String>, StoreError> {
        todo!()
    }
}

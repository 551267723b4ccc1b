//! Accounts, API keys, the ledger and usage.
//!
//! The only crate with SQL: [`Accounts`] is all that other crates see of the database. It knows no HTTP and no engines,
//! and reads no wall clock: the time is an argument.
#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod account;
mod accounts;
mod audit;
mod clock;
mod db;
mod deliveries;
mod error;
mod events;
mod expiry;
mod failpoint;
mod health;
mod identity;
mod ids;
mod key;
mod lease;
mod ledger;
mod money;
mod node;
mod options;
mod page;
mod quotas;
mod spill;
mod text;
mod tokens;
mod usage;
mod utc_day;
mod writer;

pub use crate::account::admin::{AccountChange, Standing};
pub use crate::account::delete::Remainder;
pub use crate::account::{Account, Suspension};
pub use crate::accounts::{Accounts, schema};
pub use crate::audit::{Actor, AuditRecord, By};
pub use crate::clock::{CLOCK_GAP_MAX, ClockState};
pub use crate::db::{Location, OpenError, PostgresUrl, Schema, StoreError, Trouble, UrlError};
pub use crate::deliveries::{Delivery, Subscription};
pub use crate::error::AdminError;
pub use crate::events::EventKind;
pub use crate::expiry::Expiry;
#[cfg(feature = "failpoints")]
pub use crate::failpoint::{PLACES, at_each_place};
pub use crate::ids::{AccountId, KeyId};
pub use crate::key::admin::{KeyChange, KeyDraft};
pub use crate::key::caller::{Caller, KeyError};
pub use crate::key::cap::{CapPeriod, KeySpend, SpendCaps};
pub use crate::key::rotate::RotationDraft;
pub use crate::key::{KeyInfo, KeyOptions, KeyRole, NewKey, Secret};
pub use crate::lease::Uptime;
pub use crate::ledger::hold::{Hold, HoldError, NewHold, PendingHold};
pub use crate::ledger::list::LedgerRecord;
pub use crate::ledger::movement::{Adjustment, IDEMPOTENCY_KEY_MAX, Moved, Promo, Refund};
pub use crate::ledger::recover::Recovered;
pub use crate::ledger::settle::SettleError;
pub use crate::ledger::settlement::{Outcome, Settlement, Source};
pub use crate::money::{AmountError, Nanos};
pub use crate::options::{Options, Role};
pub use crate::page::Page;
pub use crate::quotas::by_model::ModelQuotas;
pub use crate::quotas::{NoSuchTier, Quotas, Tier};
pub use crate::spill::{SpillError, SpillOptions};
pub use crate::tokens::{Counts, Price};
pub use crate::usage::UsageRecord;
pub use crate::usage::report::export::{UsageDay, UsageFilter};
pub use crate::usage::report::list::UsageEntry;
pub use crate::usage::report::{BillLine, Cycle};

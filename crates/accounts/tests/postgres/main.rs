//! The same tests as `accounts`, on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../accounts/admin.rs"]
mod admin;
#[path = "../accounts/books.rs"]
mod books;
mod breaks;
#[path = "../accounts/caps.rs"]
mod caps;
#[path = "../accounts/clock.rs"]
mod clock;
#[path = "../accounts/cluster.rs"]
mod cluster;
#[path = "../accounts/deletion.rs"]
mod deletion;
#[path = "../accounts/fixture.rs"]
mod fixture;
#[path = "../accounts/holds.rs"]
mod holds;
#[path = "../accounts/keys.rs"]
mod keys;
#[path = "../accounts/model.rs"]
mod model;
#[path = "../accounts/movements.rs"]
mod movements;
mod nodes;
#[path = "../accounts/opening.rs"]
mod opening;
#[path = "../accounts/promo_model.rs"]
mod promo_model;
#[path = "../accounts/recovery.rs"]
mod recovery;
#[path = "../accounts/reports.rs"]
mod reports;
#[path = "../accounts/spill.rs"]
mod spill;
#[path = "../accounts/webhooks.rs"]
mod webhooks;
#[path = "../accounts/writer.rs"]
mod writer;

pub(crate) const POSTGRES: bool = true;

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
mod administer;
mod audit;
mod db;
mod deliveries;
mod events;
mod failpoint;
mod key;
mod ledger;
mod money;
mod node;
mod quotas;
mod usage;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::db::{Database, Readers};
use crate::ledger::notices::Notices;
use crate::ledger::promo::ExpirePromo;
use crate::ledger::recover::{Lost, Recover};
use crate::ledger::settle::{End, How};
use crate::ledger::take::Take;
use crate::ledger::verify;
use crate::node::Node;
use crate::writer::{Asked, WriterHandle};

pub use crate::account::admin::{AccountChange, Standing};
pub use crate::account::{Account, AccountId, AdminError, Suspension};
pub use crate::audit::{Actor, AuditRecord, By, Page};
pub use crate::db::{Location, OpenError, PostgresUrl, Schema, StoreError, UrlError};
pub use crate::deliveries::{Delivery, Subscription};
pub use crate::events::EventKind;
#[cfg(feature = "failpoints")]
pub use crate::failpoint::{PLACES, at_each_place};
pub use crate::key::admin::KeyChange;
pub use crate::key::caller::{Caller, KeyError};
pub use crate::key::cap::{CapPeriod, KeySpend, SpendCaps};
pub use crate::key::{KeyId, KeyInfo, KeyOptions, KeyRole, NewKey, Secret};
pub use crate::ledger::hold::{Hold, HoldError, NewHold, PendingHold};
pub use crate::ledger::list::LedgerRecord;
pub use crate::ledger::movement::{Adjustment, Moved, PromoGift, Refund};
pub use crate::ledger::recover::Recovered;
pub use crate::ledger::settle::{Outcome, SettleError, Settlement, Source};
pub use crate::money::{AmountError, Counts, Nanos, Price};
pub use crate::quotas::by_model::ModelQuotas;
pub use crate::quotas::{NoSuchTier, Quotas, Tier};
pub use crate::usage::UsageRecord;
pub use crate::usage::report::export::{UsageDay, UsageFilter};
pub use crate::usage::report::list::UsageEntry;
pub use crate::usage::report::{BillLine, Cycle};

/// Random characters that tell a process from an earlier one of the same node.
const NODE_LEN: usize = 8;

/// Who opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves requests. On SQLite one at a time: a lock file beside the database keeps a second one off.
    Server,
    /// The command line: may read and write beside a running server.
    Tool,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub database: Location,
    pub role: Role,
    /// The name of this node in holds; each process adds a part of its own.
    pub node: String,
    /// How long to wait: on SQLite for another process that writes, on PostgreSQL for a connection and
    /// for the answer to a statement.
    pub timeout: Duration,
    /// Connections that read beside the writer's, on PostgreSQL.
    pub readers_max: u32,
    /// Where several serve from one PostgreSQL, one of which nothing was heard for so long is dead, and
    /// another one ends its holds.
    pub node_silence: Duration,
    /// Writes that may wait; a hold beyond it is refused.
    pub queue: usize,
}

impl Options {
    pub fn new(database: impl Into<Location>, role: Role) -> Self {
        Options {
            database: database.into(),
            role,
            node: "local".to_owned(),
            timeout: Duration::from_secs(5),
            readers_max: 8,
            node_silence: Duration::from_secs(30),
            queue: 4096,
        }
    }
}

/// The accounts, keys, ledger and usage in one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    readers: Readers,
    writer: WriterHandle,
    notices: Arc<Notices>,
    role: Role,
    node: Node,
}

/// Whether the schema of a database is this program's. Changes nothing.
pub async fn schema(location: &Location, timeout: Duration) -> Result<Schema, OpenError> {
    if let Location::Sqlite(path) = location
        && !path.exists()
    {
        return Ok(Schema::missing());
    }
    let mut connection = Database::at(location, timeout, 1)?.connect().await?;
    Ok(connection.schema().await?)
}

impl Accounts {
    /// Creates the database if needed and brings its schema up to date. Refuses a newer schema.
    pub async fn open(options: Options, now: Timestamp) -> Result<Accounts, OpenError> {
        let database = Database::at(&options.database, options.timeout, options.readers_max)?;
        let lock = match options.role {
            Role::Server => database.lock()?,
            Role::Tool => None,
        };
        let mut connection = database.connect().await?;
        connection.migrate(now).await?;
        let node = Node {
            name: format!("{}-{}", options.node, key::random(NODE_LEN)).into(),
            silence: options.node_silence,
            beats: options.role == Role::Server && database.is_shared(),
        };
        if node.beats {
            node.beat(&mut connection).await?;
        }
        let notices = Arc::new(Notices::default());
        let writer = WriterHandle::start(
            database.clone(),
            connection,
            Arc::clone(&notices),
            options.queue,
            lock,
            node.beats.then(|| node.clone()),
        );
        let readers = database.readers();
        Ok(Accounts(Arc::new(Inner {
            database,
            readers,
            writer,
            notices,
            role: options.role,
            node,
        })))
    }

    /// Writes what waits, then closes. What is asked afterwards is a [`StoreError`].
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writer.close().await;
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.0.readers.row("SELECT 1", &[]).await.map(|_| ())
    }

    /// Reads the database each time, so that a revoked key is refused at once.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, KeyError> {
        key::caller::authenticate(&self.0.readers, &self.0.notices, presented, now).await
    }

    /// Newest first.
    pub async fn usage(
        &self,
        account: &AccountId,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::newest(&self.0.readers, account, limit).await
    }

    /// What an account's requests cost by cycle, model and price, the oldest first; `time` is from and to before.
    pub async fn bill(
        &self,
        account: &AccountId,
        cycle: Cycle,
        time: [Timestamp; 2],
    ) -> Result<Vec<BillLine>, StoreError> {
        usage::report::bill(&self.0.readers, account, cycle, time).await
    }

    /// Asks the writer for a hold at once. Nothing may be released to the client before it is
    /// [durable](PendingHold::durable).
    pub fn hold(&self, new: NewHold) -> Result<PendingHold, HoldError> {
        let node = Arc::clone(&self.0.node.name);
        let notices = Arc::clone(&self.0.notices);
        match self.0.writer.ask(Take { new, node, notices }) {
            Asked::Queued(answer) => Ok(PendingHold::new(answer)),
            Asked::Full => Err(HoldError::Overloaded),
            Asked::Closed => Err(HoldError::Store(StoreError::closed())),
        }
    }

    /// Holds more. If it fails, the hold is what it was.
    pub async fn extend(
        &self,
        hold: &mut Hold,
        more: Nanos,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        let extended = self.0.writer.write(hold.extension(more, now)?).await;
        if let Err(HoldError::BalanceTooLow { .. }) = &extended {
            self.0.notices.exhausted(hold.account(), now);
        }
        hold.extended(extended?);
        Ok(())
    }

    /// Notes what was delivered, to be charged if this process dies. Written soon, best effort.
    pub fn checkpoint(&self, hold: &Hold, counts: Counts, now: Timestamp) {
        hold.note(counts, now);
    }

    /// Charges, writes the usage record and frees the rest, durably. Returns what was charged: the
    /// first result, if the hold had ended before.
    pub async fn settle(&self, hold: Hold, settlement: Settlement) -> Result<Nanos, SettleError> {
        let Settlement {
            counts,
            outcome,
            source,
            now,
        } = settlement;
        self.0
            .writer
            .write(End {
                hold,
                how: How::Settle {
                    counts,
                    outcome,
                    source,
                },
                now,
            })
            .await
    }

    /// Frees the hold of an attempt that never started: no charge, no usage record.
    pub async fn release(&self, hold: Hold, now: Timestamp) -> Result<(), SettleError> {
        self.0
            .writer
            .write(End {
                hold,
                how: How::Release,
                now,
            })
            .await
            .map(|_| ())
    }

    /// At boot: ends the open holds of dead processes. For a server those are all that aren't its own,
    /// except for those of others that are alive; a tool, beside which a server may run, ends only what is
    /// overdue.
    pub async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        match self.0.role {
            Role::Server => self.end_lost(Lost::OfOthers, now).await,
            Role::Tool => self.end_lost(Lost::Overdue, now).await,
        }
    }

    /// Now and then: ends what others have lost since. On PostgreSQL those are the holds of dead nodes; on
    /// SQLite, overdue holds, of which nothing was heard for their whole lifetime. This process can't lose a
    /// hold, and a clock that jumps must not end them. Books promotional credit that has expired, too.
    pub async fn expire(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        self.0.writer.write(ExpirePromo { now }).await?;
        if self.0.database.is_shared() {
            return self.recover(now).await;
        }
        self.end_lost(Lost::Overdue, now).await
    }

    async fn end_lost(&self, which: Lost, now: Timestamp) -> Result<Recovered, StoreError> {
        let node = self.0.node.clone();
        self.0.writer.write(Recover { node, which, now }).await
    }

    /// Recomputes all balances and charges from the entries and names each difference.
    pub async fn verify(&self) -> Result<Vec<String>, StoreError> {
        Box::pin(verify::verify(&self.0.database)).await
    }

    /// The same as far as it takes no longer when the history grows: balances against their last transaction, their
    /// open holds and their gifts.
    pub async fn verify_quickly(&self) -> Result<Vec<String>, StoreError> {
        let database = self.0.database.clone();
        let verified = async move { verify::quickly(&mut database.connect().await?).await };
        self.0.database.aside(verified).await
    }
}

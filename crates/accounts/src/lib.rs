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
mod clock;
mod db;
mod deliveries;
mod events;
mod failpoint;
mod health;
mod identity;
mod key;
mod lease;
mod ledger;
mod money;
mod node;
mod quotas;
mod spill;
mod text;
mod usage;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::BooksClock;
use crate::db::{Database, Readers};
use crate::health::Health;
use crate::ledger::notices::Notices;
use crate::ledger::promo::ExpirePromo;
use crate::ledger::recover::Recover;
use crate::ledger::replay::{Replay, Replayed};
use crate::ledger::settle::{End, How};
use crate::ledger::take::Take;
use crate::ledger::verify;
use crate::node::Node;
use crate::spill::{Kept, Spill};
use crate::writer::{Asked, WriterHandle};

pub use crate::account::admin::{AccountChange, Standing};
pub use crate::account::delete::Remainder;
pub use crate::account::{Account, AccountId, AdminError, Suspension};
pub use crate::audit::{Actor, AuditRecord, By, Page};
pub use crate::clock::{CLOCK_GAP_MAX, ClockState};
pub use crate::db::{Location, OpenError, PostgresUrl, Schema, StoreError, Trouble, UrlError};
pub use crate::deliveries::{Delivery, Subscription};
pub use crate::events::EventKind;
#[cfg(feature = "failpoints")]
pub use crate::failpoint::{PLACES, at_each_place};
pub use crate::key::admin::{KeyChange, KeyDraft};
pub use crate::key::caller::{Caller, KeyError};
pub use crate::key::cap::{CapPeriod, KeySpend, SpendCaps};
pub use crate::key::rotate::RotationDraft;
pub use crate::key::{KeyId, KeyInfo, KeyOptions, KeyRole, NewKey, Secret};
pub use crate::lease::Uptime;
pub use crate::ledger::hold::{Hold, HoldError, NewHold, PendingHold};
pub use crate::ledger::list::LedgerRecord;
pub use crate::ledger::movement::{Adjustment, Expiry, Moved, PromoGift, Refund};
pub use crate::ledger::recover::Recovered;
pub use crate::ledger::settle::{Outcome, SettleError, Settlement, Source};
pub use crate::money::{AmountError, Counts, Nanos, Price};
pub use crate::quotas::by_model::ModelQuotas;
pub use crate::quotas::{NoSuchTier, Quotas, Tier};
pub use crate::spill::{SpillError, SpillOptions};
pub use crate::usage::UsageRecord;
pub use crate::usage::report::export::{UsageDay, UsageFilter};
pub use crate::usage::report::list::UsageEntry;
pub use crate::usage::report::{BillLine, Cycle};

/// Who opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves requests. On SQLite one at a time: a lock on the database's file keeps a second one off.
    Server,
    /// The command line: may read and write beside a running server.
    Tool,
    /// Reads beside a running server, or a backup on a disk that can't be written. It makes and changes nothing.
    Reader,
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
    /// Where several serve from one PostgreSQL, one that doesn't renew its lease for so long is dead, and another one
    /// ends its holds.
    pub node_silence: Duration,
    /// The time that leases are measured by.
    pub uptime: Uptime,
    /// Where a server keeps the ends of requests while the database can't be written.
    pub spill: Option<SpillOptions>,
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
            uptime: Uptime::system(),
            spill: None,
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
    node: Arc<Node>,
    clock: BooksClock,
    health: Arc<Health>,
    /// Held by the one that looks whether the database can be used.
    looking: tokio::sync::Mutex<()>,
    /// What processes that are gone have kept beside the database.
    left: Mutex<Vec<Kept>>,
}

/// Whether the schema of a database is this program's. Changes nothing.
pub async fn schema(location: &Location, timeout: Duration) -> Result<Schema, OpenError> {
    if let Location::Sqlite(path) = location
        && !path.exists()
    {
        return Ok(Schema::missing());
    }
    let mut database = Database::at(location, timeout, 1)?;
    database.prepare_reading()?;
    Ok(database.connect().await?.schema().await?)
}

impl Accounts {
    /// Creates the database if needed and brings its schema up to date. Refuses a newer schema. For a
    /// [reader](Role::Reader) the database has to be there, with the schema that this program knows.
    pub async fn open(options: Options, now: Timestamp) -> Result<Accounts, OpenError> {
        let mut database = Database::at(&options.database, options.timeout, options.readers_max)?;
        if options.role == Role::Reader {
            return Accounts::open_reader(database, options, now).await;
        }
        database.prepare()?;
        let serves = options.role == Role::Server;
        let lock = if serves { database.lock()? } else { None };
        let mut connection = database.connect().await?;
        connection.migrate(now).await?;
        let identity = identity::open(&mut connection).await?;
        database.remember(&identity)?;
        let newest = clock::open(&mut connection, now).await?;
        let shared = serves && database.is_shared();
        let node = Arc::new(Node::new(&options, shared));
        if shared {
            node.register(&mut connection).await?;
        }
        let mut left = Vec::new();
        let mut spill = None;
        if serves {
            database.watch()?;
            if let Some(options) = &options.spill {
                let (opened, found) = Spill::open(options, &identity)?;
                spill = Some(opened);
                left = found;
            }
        }
        let notices = Arc::new(Notices::new(spill));
        let health = Arc::new(Health::default());
        let writer = WriterHandle::start(
            database.clone(),
            connection,
            Arc::clone(&notices),
            options.queue,
            lock,
            shared.then(|| Arc::clone(&node)),
            Arc::clone(&health),
        );
        let readers = database.readers();
        Ok(Accounts(Arc::new(Inner {
            database,
            readers,
            writer,
            notices,
            role: options.role,
            node,
            clock: BooksClock::new(newest, now, Instant::now()),
            health,
            looking: tokio::sync::Mutex::default(),
            left: Mutex::new(left),
        })))
    }

    async fn open_reader(
        mut database: Database,
        options: Options,
        now: Timestamp,
    ) -> Result<Accounts, OpenError> {
        database.prepare_reading()?;
        let schema = database.connect().await?.schema().await?;
        let Schema { found, known } = schema;
        if schema.is_newer() {
            return Err(OpenError::Newer { found, known });
        }
        if !schema.is_current() {
            return Err(OpenError::Older { found, known });
        }
        let readers = database.readers();
        let newest = clock::newest(&readers).await?;
        let node = Node::new(&options, false);
        Ok(Accounts(Arc::new(Inner {
            database,
            readers,
            writer: WriterHandle::none(),
            notices: Arc::default(),
            role: options.role,
            node: Arc::new(node),
            clock: BooksClock::new(newest, now, Instant::now()),
            health: Arc::default(),
            looking: tokio::sync::Mutex::default(),
            left: Mutex::default(),
        })))
    }

    /// Writes what waits, then closes. What is asked afterwards is a [`StoreError`].
    pub async fn close(&self) {
        self.0.readers.close().await;
        if self.0.role == Role::Server
            && let Some(newest) = self.0.clock.last()
            && let Asked::Queued(noted) = self.0.writer.ask(clock::Note { newest })
            && let Ok(Err(error)) = noted.await
        {
            tracing::warn!(%error, "the newest time can't be written down");
        }
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

    /// Records that ended at `time[0]` or later, and before `time[1]`; newest first.
    pub async fn usage_between(
        &self,
        account: &AccountId,
        time: [Timestamp; 2],
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::between(&self.0.readers, account, time, limit).await
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
        let lease = self.0.node.lease();
        let notices = Arc::clone(&self.0.notices);
        let take = Take {
            new,
            lease,
            notices,
        };
        match self.0.writer.ask(take) {
            Asked::Queued(answer) => Ok(PendingHold::new(answer)),
            Asked::Full => Err(HoldError::Overloaded),
            Asked::Closed => Err(HoldError::Store(StoreError::closed())),
        }
    }

    /// A request was refused since the balance covers nothing: those who want to know are told, once a day.
    pub fn note_exhausted(&self, account: &AccountId, now: Timestamp) {
        self.0.notices.exhausted(account, now);
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

    /// Keeps what was delivered beside the database, durably: for a checkpoint that waits for the database for too long.
    pub async fn keep_checkpoint(
        &self,
        hold: &Hold,
        counts: Counts,
        now: Timestamp,
    ) -> Result<(), SpillError> {
        hold.keep_checkpoint(counts, now).await
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

    /// Keeps how a request ended beside the database, durably: for one whose settlement has failed. The hold is to be
    /// settled all the same as soon as that works; if this process doesn't live to see it, the next one does it.
    pub async fn keep(&self, hold: &Hold, settlement: Settlement) -> Result<(), SpillError> {
        hold.keep(settlement).await
    }

    /// How many requests are kept beside the database.
    pub fn kept(&self) -> usize {
        self.0.notices.spill().map_or(0, Spill::used)
    }

    /// At boot, of a server: brings into the database what dead processes have kept beside it, and ends their open holds.
    pub async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        if self.0.role != Role::Server {
            return Ok(Recovered::default());
        }
        let mut recovered = self.replay().await?;
        let ended = self.end_lost(now).await?;
        recovered.add(ended)?;
        Ok(recovered)
    }

    /// Now and then: ends what others have lost since, which on PostgreSQL are the holds of dead nodes, and books
    /// promotional credit that has expired.
    pub async fn expire(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        self.0.writer.write(ExpirePromo { now }).await?;
        if self.0.node.is_shared() {
            return self.end_lost(now).await;
        }
        Ok(Recovered::default())
    }

    async fn end_lost(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        let node = Arc::clone(&self.0.node);
        self.0.writer.write(Recover { node, now }).await
    }

    fn left(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn replay(&self) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        let left = std::mem::take(&mut *self.left());
        for kept in left {
            let (hold, request) = (kept.hold, kept.request.clone());
            match self.0.writer.write(Replay { kept: kept.clone() }).await {
                Ok(Replayed::Ended(charged)) => recovered.charge(charged)?,
                Ok(Replayed::Unknown) => tracing::error!(
                    request,
                    ?kept,
                    "a request was kept beside the database, which doesn't know it: is the database older?"
                ),
                Err(error) => {
                    self.left().push(kept);
                    return Err(error);
                }
            }
            self.0.notices.ended(hold);
        }
        Ok(recovered)
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

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
mod administer;
mod audit;
mod clock;
mod db;
mod deliveries;
mod events;
mod expiry;
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
pub use crate::expiry::Expiry;
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
pub use crate::ledger::movement::{Adjustment, IDEMPOTENCY_KEY_MAX, Moved, PromoGift, Refund};
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

/// The kind of process that opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves requests. On SQLite only one server at a time: a lock on the database's file keeps a second one off.
    Server,
    /// The command line: may read and write beside a running server.
    Tool,
    /// Only reads: beside a running server, or a backup on a read-only disk. Creates and changes nothing.
    Reader,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub database: Location,
    pub role: Role,
    /// The node's name in the rows of its holds; each process appends random characters to it.
    pub node: String,
    /// The longest wait: on SQLite for another process's write lock or a free reading connection, on PostgreSQL for a
    /// connection and for a statement's answer.
    pub timeout: Duration,
    /// The number of reading connections beside the writer's own, on PostgreSQL.
    pub readers_max: u32,
    /// The time after which a node of a shared PostgreSQL that doesn't renew its lease is dead: another node then ends
    /// its holds.
    pub node_silence: Duration,
    /// The clock that leases are measured by.
    pub uptime: Uptime,
    /// Where a server notes the ends of requests while the database can't be written. `None` notes them nowhere.
    pub spill: Option<SpillOptions>,
    /// The capacity of the writer's queue, in operations. When it is full, a new hold is refused, and other writes
    /// wait.
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
    /// Held while [`Accounts::check`] probes the database, so that only one probe runs at a time.
    looking: tokio::sync::Mutex<()>,
    /// Notes that dead processes left in spill files, until [`Accounts::recover`] has brought them into the database.
    left: Mutex<Vec<Kept>>,
}

/// Compares the schema of a database to the one that this program knows. Changes nothing; a missing file has schema 0.
pub async fn schema(location: &Location, timeout: Duration) -> Result<Schema, OpenError> {
    if let Location::Sqlite(path) = location
        && !path.exists()
    {
        return Ok(Schema::missing());
    }
    let mut database = Database::at(location, timeout, 1)?;
    database.prepare_reading()?;
    found_schema(&database).await
}

/// The schema of a database that is there. An error if it has lost its books.
async fn found_schema(database: &Database) -> Result<Schema, OpenError> {
    let schema = database.connect().await?.schema().await?;
    if schema.is_empty() {
        database.refuse_without_books()?;
    }
    Ok(schema)
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
        connection.migrate(&database, now).await?;
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
        let schema = found_schema(&database).await?;
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

    /// Writes the queued operations, then closes. Later calls fail with a [`StoreError`].
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

    /// The caller that presents this key. Reads the database each time, so that a revoked key is refused at once.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, KeyError> {
        key::caller::authenticate(&self.0.readers, &self.0.notices, presented, now).await
    }

    /// The newest usage records of an account, newest first.
    pub async fn usage(
        &self,
        account: &AccountId,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::newest(&self.0.readers, account, limit).await
    }

    /// Usage records of an account that ended at `time[0]` or later, and before `time[1]`; newest first.
    pub async fn usage_between(
        &self,
        account: &AccountId,
        time: [Timestamp; 2],
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::between(&self.0.readers, account, time, limit).await
    }

    /// The cost of an account's requests by cycle, model and price, oldest cycle first. `time` is a range: from
    /// `time[0]` to before `time[1]`.
    pub async fn bill(
        &self,
        account: &AccountId,
        cycle: Cycle,
        time: [Timestamp; 2],
    ) -> Result<Vec<BillLine>, StoreError> {
        usage::report::bill(&self.0.readers, account, cycle, time).await
    }

    /// Queues a new hold for the writer, without waiting. No output may reach the client before the hold is
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

    /// Notes that a request was refused because the account's balance covers nothing. Webhooks that subscribe to
    /// `balance.exhausted` are told, once per UTC day.
    pub fn note_exhausted(&self, account: &AccountId, now: Timestamp) {
        self.0.notices.exhausted(account, now);
    }

    /// Raises a hold by `more`. On an error the hold keeps its amount.
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

    /// Notes the tokens delivered so far, to be charged if this process dies. Written with the next transaction, best
    /// effort.
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

    /// Charges the cost, writes the usage record and frees the rest of the hold, in one durable transaction. Returns
    /// the charge. A hold that had ended before keeps its first result; if another node ended it, the difference is
    /// charged late.
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

    /// Notes beside the database, durably, how a request ended whose settlement failed. The hold must still be settled
    /// as soon as that works; if this process dies before, the next start settles it.
    pub async fn keep(&self, hold: &Hold, settlement: Settlement) -> Result<(), SpillError> {
        hold.keep(settlement).await
    }

    /// The number of requests that are noted beside the database.
    pub fn kept(&self) -> usize {
        self.0.notices.spill().map_or(0, Spill::used)
    }

    /// Run by a server at boot: brings the notes of dead processes into the database, and ends their open holds.
    pub async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        if self.0.role != Role::Server {
            return Ok(Recovered::default());
        }
        let mut recovered = self.replay().await?;
        let ended = self.end_lost(now).await?;
        recovered.add(ended)?;
        Ok(recovered)
    }

    /// Run about once a minute: ends the holds of nodes that have died since (on PostgreSQL), and books promo credit
    /// that has expired.
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

    /// The part of [`verify`](Accounts::verify) whose time doesn't grow with the history: balances against their last
    /// transaction, their open holds and their promo credit.
    pub async fn verify_quickly(&self) -> Result<Vec<String>, StoreError> {
        let database = self.0.database.clone();
        let verified = async move { verify::quickly(&mut database.connect().await?).await };
        self.0.database.aside(verified).await
    }
}

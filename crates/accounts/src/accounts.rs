//! The database that is open: all that other crates see of it.

mod administer;
mod check;
mod deliveries;
mod maintenance;
mod reports;
mod requests;
mod time;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock::{self, BooksClock};
use crate::db::{Database, Location, OpenError, Readers, Schema, StoreError};
use crate::health::Health;
use crate::identity;
use crate::ledger::notices::Notices;
use crate::ledger::writes::LedgerWrites;
use crate::node::Node;
use crate::options::{Options, Role};
use crate::spill::{Kept, Spill};
use crate::writer::{Asked, WriterHandle};

/// The accounts, keys, ledger and usage in one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    readers: Readers,
    writer: WriterHandle<LedgerWrites>,
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
            LedgerWrites {
                notices: Arc::clone(&notices),
            },
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
}

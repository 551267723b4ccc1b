//! The database: the one place that names a driver.
//!
//! All other modules write SQL in the common subset of SQLite and PostgreSQL (`$1`, `ON CONFLICT`, `RETURNING`,
//! integers for time) and hand it to a [`Connection`] or to [`Readers`].

mod error;
mod location;
mod postgres;
mod postgres_url;
mod schema;
mod sqlite;
mod value;

use std::fs::File;
use std::time::Duration;

pub use self::error::{OpenError, StoreError, Trouble};
pub use self::location::Location;
pub use self::postgres_url::{PostgresUrl, UrlError};
pub use self::schema::Schema;
pub(crate) use self::value::{Column, Row, Value, values};

/// Where the database is, and how to connect to it.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite(sqlite::Database),
    Postgres(Box<postgres::Database>),
}

impl Database {
    pub(crate) fn at(
        location: &Location,
        timeout: Duration,
        readers_max: u32,
    ) -> Result<Self, OpenError> {
        Ok(match location {
            Location::Sqlite(path) => Database::Sqlite(sqlite::Database::at(path, timeout)),
            Location::Postgres(url) => {
                let database = postgres::Database::at(url, timeout, readers_max)?;
                Database::Postgres(Box::new(database))
            }
        })
    }

    /// Whether several processes may serve from this database.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Database::Postgres(_))
    }

    /// Whether a connection's calls block the thread until they are done.
    pub(crate) fn blocks(&self) -> bool {
        matches!(self, Database::Sqlite(_))
    }

    /// Runs long work that uses a connection of its own: on SQLite on a thread where blocking is allowed.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.blocks() {
            return work.await;
        }
        tokio::task::spawn_blocking(move || futures::executor::block_on(work))
            .await
            .unwrap_or_else(|error| Err(StoreError::contradiction(error.to_string())))
    }

    /// Finds the database, or creates it.
    pub(crate) fn prepare(&mut self) -> Result<(), OpenError> {
        match self {
            Database::Sqlite(database) => database.prepare(),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Finds the database for a process that only reads.
    pub(crate) fn prepare_reading(&mut self) -> Result<(), OpenError> {
        match self {
            Database::Sqlite(database) => database.prepare_reading(),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// An error if the books of a database that has none must have been lost.
    pub(crate) fn refuse_without_books(&self) -> Result<(), OpenError> {
        match self {
            Database::Sqlite(database) => database.refuse_without_books(),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Writes the database's id beside a SQLite file, so that a later start notices when the file is lost.
    pub(crate) fn remember(&self, id: &str) -> Result<(), OpenError> {
        match self {
            Database::Sqlite(database) => database.remember(id),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Takes the lock that keeps a second server off. `None` where several may serve.
    pub(crate) fn lock(&self) -> Result<Option<File>, OpenError> {
        match self {
            Database::Sqlite(database) => database.lock().map(Some),
            Database::Postgres(_) => Ok(None),
        }
    }

    /// Remembers which files the database has, for [`check_place`](Database::check_place).
    pub(crate) fn watch(&mut self) -> Result<(), OpenError> {
        match self {
            Database::Sqlite(database) => database.watch(),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// An error if the database's files were moved, removed or replaced since [`watch`](Database::watch).
    pub(crate) fn check_place(&self) -> Result<(), StoreError> {
        match self {
            Database::Sqlite(database) => database.check_place(),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Opens a new connection for the writer.
    pub(crate) async fn connect_writer(&self) -> Result<Connection, StoreError> {
        if let Database::Sqlite(database) = self {
            database.forget_log();
        }
        self.connect().await
    }

    pub(crate) async fn connect(&self) -> Result<Connection, StoreError> {
        let driver = match self {
            Database::Sqlite(database) => Driver::Sqlite(database.connect()?),
            Database::Postgres(database) => Driver::Postgres(database.connect().await?),
        };
        Ok(Connection {
            driver,
            changed: false,
        })
    }

    pub(crate) fn readers(&self) -> Readers {
        match self {
            Database::Sqlite(database) => Readers::Sqlite(database.readers()),
            Database::Postgres(database) => Readers::Postgres(database.readers()),
        }
    }
}

/// A connection that may write.
#[derive(Debug)]
pub(crate) struct Connection {
    driver: Driver,
    /// Whether a statement may have changed anything since [`mark`](Connection::mark).
    changed: bool,
}

#[derive(Debug)]
enum Driver {
    Sqlite(sqlite::Connection),
    Postgres(postgres::Connection),
}

impl Connection {
    pub(crate) async fn rows(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.run(sql, values).await?;
        // A changing statement that returned no row changed nothing.
        self.changed |= !rows.is_empty() && !sql.starts_with("SELECT");
        Ok(rows)
    }

    async fn run(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        Value::check(values)?;
        match &mut self.driver {
            Driver::Sqlite(connection) => connection.rows(sql, values),
            Driver::Postgres(connection) => connection.rows(sql, values).await,
        }
    }

    /// Resets [`has_changed`](Connection::has_changed): from now on it tells about later statements.
    pub(crate) fn mark(&mut self) {
        self.changed = false;
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// The first row, if there is one.
    pub(crate) async fn row(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    pub(crate) async fn execute(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<(), StoreError> {
        self.changed = true;
        self.run(sql, values).await.map(drop)
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(connection) => connection.script(sql),
            Driver::Postgres(connection) => connection.script(sql).await,
        }
    }

    /// Begins a transaction that writes. SQLite waits for another writer now: at the first write it would fail at once,
    /// as its snapshot may be old by then.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => self.run("BEGIN IMMEDIATE", &[]).await.map(drop),
            Driver::Postgres(connection) => connection.begin().await,
        }
    }

    pub(crate) async fn begin_reading(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => self.run("BEGIN", &[]).await.map(drop),
            Driver::Postgres(connection) => connection.begin_reading().await,
        }
    }

    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.script("COMMIT").await
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), StoreError> {
        self.script("ROLLBACK").await
    }

    /// Locks the balances of these accounts in the order of their ids, so that transactions that lock several can't
    /// deadlock. Returns `account, posted, held, credit_limit, low_balance, low_day, promo_expires_at` of each. On
    /// SQLite, which has one writer, it does nothing and returns no rows.
    pub(crate) async fn lock_balances(
        &mut self,
        accounts: &[&str],
    ) -> Result<Vec<Row>, StoreError> {
        match &mut self.driver {
            Driver::Postgres(connection) if !accounts.is_empty() => {
                connection.lock_balances(accounts).await
            }
            Driver::Postgres(_) | Driver::Sqlite(_) => Ok(Vec::new()),
        }
    }

    /// Whether [`many`](Connection::many) works: only on PostgreSQL, where each statement is a round trip.
    pub(crate) fn has_many(&self) -> bool {
        matches!(self.driver, Driver::Postgres(_))
    }

    /// Runs a statement for many rows, with an array for each parameter. Fails on SQLite, which has no arrays.
    pub(crate) async fn many(
        &mut self,
        sql: &'static str,
        columns: Vec<Column>,
    ) -> Result<Vec<Row>, StoreError> {
        self.changed = true;
        match &mut self.driver {
            Driver::Postgres(connection) => connection.many(sql, columns).await,
            Driver::Sqlite(_) => Err(StoreError::contradiction("SQLite has no arrays")),
        }
    }

    /// The database's clock, in milliseconds since 1970.
    pub(crate) async fn clock_ms(&mut self) -> Result<i64, StoreError> {
        let sql = match &mut self.driver {
            Driver::Sqlite(_) => sqlite::CLOCK_MS,
            Driver::Postgres(_) => postgres::CLOCK_MS,
        };
        let row = self.row(sql, &[]).await?;
        row.ok_or_else(|| StoreError::contradiction("the clock has no row"))?
            .integer(0)
    }

    pub(crate) async fn savepoint(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => self.run("SAVEPOINT operation", &[]).await.map(drop),
            Driver::Postgres(connection) => connection.savepoint().await,
        }
    }

    pub(crate) async fn release(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => self.run("RELEASE SAVEPOINT operation", &[]).await.map(drop),
            Driver::Postgres(connection) => {
                connection.release();
                Ok(())
            }
        }
    }

    pub(crate) async fn undo(&mut self) -> Result<(), StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => {
                self.run("ROLLBACK TO SAVEPOINT operation", &[]).await?;
                self.release().await
            }
            Driver::Postgres(connection) => connection.undo().await,
        }
    }

    pub(crate) async fn close(self) -> Result<(), StoreError> {
        match self.driver {
            Driver::Sqlite(connection) => connection.close(),
            Driver::Postgres(connection) => connection.close().await,
        }
    }
}

/// Connections that only read.
#[derive(Debug, Clone)]
pub(crate) enum Readers {
    Sqlite(sqlite::Readers),
    Postgres(postgres::Readers),
}

impl Readers {
    pub(crate) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        Value::check(values)?;
        match self {
            Readers::Sqlite(readers) => readers.rows(sql, values).await,
            Readers::Postgres(readers) => readers.rows(sql, values).await,
        }
    }

    pub(crate) async fn row(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    pub(crate) async fn close(&self) {
        match self {
            Readers::Sqlite(readers) => readers.close().await,
            Readers::Postgres(readers) => readers.close().await,
        }
    }
}

//! The database: the one place that names a driver.
//!
//! Everybody else writes SQL in the common subset of SQLite and PostgreSQL (`$1`, `ON CONFLICT`,
//! `RETURNING`, integers for time) and hands it to a [`Connection`] or to [`Readers`].

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection as _, Row as _, SqliteConnection};

use crate::money::Nanos;

/// Connections that read beside the writer.
const READERS_MAX: u32 = 4;
/// Forward only; a database that has more than these is newer than this program.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/sqlite/0001_ledger.sql")];

/// The database failed: it can't be reached, is locked or full, or refused what should have been
/// possible. The text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database failed: {text}")]
pub struct StoreError {
    text: Arc<str>,
    scope: Scope,
}

/// How much of a transaction an error has spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// One statement was refused; a savepoint undoes it.
    Statement,
    /// The connection can't be trusted any more.
    Connection,
}

impl StoreError {
    /// What the database holds or was asked for contradicts what this crate takes for granted.
    pub(crate) fn contradiction(text: impl Into<Arc<str>>) -> Self {
        StoreError {
            text: text.into(),
            scope: Scope::Statement,
        }
    }

    pub(crate) fn closed() -> Self {
        StoreError::contradiction("it is closed")
    }

    pub(crate) fn spoils_transaction(&self) -> bool {
        self.scope == Scope::Connection
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let scope = if is_constraint(&error) {
            Scope::Statement
        } else {
            Scope::Connection
        };
        StoreError {
            text: error.to_string().into(),
            scope,
        }
    }
}

/// SQLite keeps the transaction when a constraint or a trigger refuses a statement. It may have
/// rolled everything back when the disk is full, memory is short or reading fails.
fn is_constraint(error: &sqlx::Error) -> bool {
    const SQLITE_CONSTRAINT: u32 = 19;
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == SQLITE_CONSTRAINT)
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another weir server uses {}", .0.display())]
    InUse(PathBuf),
    #[error("the database has schema {found}, this weir knows up to {known}: use a newer weir")]
    Newer { found: i64, known: i64 },
    #[error("can't open {}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A value to bind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Integer(Option<i64>),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Value::Integer(Some(integer))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(integer: Option<i64>) -> Self {
        Value::Integer(integer)
    }
}

impl From<Nanos> for Value<'_> {
    fn from(amount: Nanos) -> Self {
        Value::Integer(Some(amount.get()))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        Value::Integer(Some(at.as_millisecond()))
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(at: Option<Timestamp>) -> Self {
        Value::Integer(at.map(Timestamp::as_millisecond))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

/// The values of a statement, each as what it is.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] };
}
pub(crate) use values;

/// A row; columns by position.
#[derive(Debug)]
pub(crate) struct Row(SqliteRow);

impl Row {
    pub(crate) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(crate) fn integer_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(crate) fn text_or_null(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    pub(crate) fn nanos(&self, column: usize) -> Result<Nanos, StoreError> {
        self.integer(column).map(Nanos::new)
    }

    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.integer(column)?)
            .map_err(|_| StoreError::contradiction(format!("column {column} is negative")))
    }

    pub(crate) fn time(&self, column: usize) -> Result<Timestamp, StoreError> {
        self.time_or_null(column)?
            .ok_or_else(|| StoreError::contradiction(format!("column {column} is no time")))
    }

    pub(crate) fn time_or_null(&self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .integer_or_null(column)?
            .map(Timestamp::from_millisecond);
        at.transpose()
            .map_err(|error| StoreError::contradiction(error.to_string()))
    }
}

/// Where the database is, and how to connect to it.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    options: SqliteConnectOptions,
}

impl Database {
    /// Makes the file if it isn't there, for its owner only.
    pub(crate) fn at(path: &Path, busy_timeout: Duration) -> Result<Self, OpenError> {
        create(path).map_err(|error| OpenError::File {
            path: path.to_owned(),
            error,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(busy_timeout)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        Ok(Database {
            path: path.to_owned(),
            options,
        })
    }

    /// A lock that only one server holds; it ends with the file.
    pub(crate) fn lock(&self) -> Result<File, OpenError> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error| OpenError::File {
            path: path.clone(),
            error,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(self.path.clone())),
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, StoreError> {
        Ok(Connection(self.options.connect().await?))
    }

    pub(crate) fn readers(&self) -> Readers {
        let pool = PoolOptions::<Sqlite>::new()
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(self.options.clone().pragma("query_only", "ON"));
        Readers(pool)
    }
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // It may have been made by something less careful. The files beside it get the same rights.
    file.set_permissions(Permissions::from_mode(0o600))
}

/// A connection that may write.
#[derive(Debug)]
pub(crate) struct Connection(SqliteConnection);

impl Connection {
    pub(crate) async fn rows(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        rows(&mut self.0, sql, values).await
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
        bound(sql, values).execute(&mut self.0).await?;
        Ok(())
    }

    /// A transaction that writes. Waits for another writer now rather than at the first statement,
    /// when it would be too late.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE", &[]).await
    }

    pub(crate) async fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN", &[]).await
    }

    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT", &[]).await
    }

    pub(crate) async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.execute("SAVEPOINT operation", &[]).await
    }

    pub(crate) async fn release(&mut self) -> Result<(), StoreError> {
        self.execute("RELEASE SAVEPOINT operation", &[]).await
    }

    pub(crate) async fn undo(&mut self) -> Result<(), StoreError> {
        self.execute("ROLLBACK TO SAVEPOINT operation", &[]).await?;
        self.release().await
    }

    /// Brings the schema up to date, in one transaction, so that two processes can start at once.
    pub(crate) async fn migrate(&mut self, now: Timestamp) -> Result<(), OpenError> {
        self.begin().await?;
        self.execute(
            "CREATE TABLE IF NOT EXISTS migration (version BIGINT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
            &[],
        )
        .await?;
        let newest = self
            .row("SELECT COALESCE(MAX(version), 0) FROM migration", &[])
            .await?;
        let found = newest.map_or(Ok(0), |row| row.integer(0))?;
        let known = i64::try_from(MIGRATIONS.len()).expect("there are few migrations");
        if found > known {
            return Err(OpenError::Newer { found, known });
        }
        for (version, sql) in (1i64..)
            .zip(MIGRATIONS)
            .filter(|(version, _)| *version > found)
        {
            sqlx::raw_sql(*sql)
                .execute(&mut self.0)
                .await
                .map_err(StoreError::from)?;
            self.execute(
                "INSERT INTO migration (version, applied_at) VALUES ($1, $2)",
                values![version, now],
            )
            .await?;
        }
        Ok(self.commit().await?)
    }

    /// Moves the log into the database file, and closes.
    pub(crate) async fn close(mut self) -> Result<(), StoreError> {
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)", &[]).await?;
        Ok(self.0.close().await?)
    }
}

/// Connections that only read.
#[derive(Debug, Clone)]
pub(crate) struct Readers(SqlitePool);

impl Readers {
    pub(crate) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.0.acquire().await?;
        rows(&mut connection, sql, values).await
    }

    pub(crate) async fn row(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

type Query = sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments>;

fn bound(sql: &'static str, values: &[Value<'_>]) -> Query {
    values
        .iter()
        .fold(sqlx::query(sql), |query, value| match *value {
            Value::Integer(integer) => query.bind(integer),
            Value::Text(text) => query.bind(text.map(str::to_owned)),
            Value::Bytes(bytes) => query.bind(bytes.to_vec()),
        })
}

async fn rows(
    connection: &mut SqliteConnection,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<Vec<Row>, StoreError> {
    let rows = bound(sql, values).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Row).collect())
}

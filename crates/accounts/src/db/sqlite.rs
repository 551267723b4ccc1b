//! SQLite: one file, one process that serves.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePool,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};

use super::error::Kind;
use super::{OpenError, Row, StoreError, Value};

/// Connections that read beside the writer.
const READERS_MAX: u32 = 4;
/// Forward only; a database that has more than these is newer than this program.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_ledger.sql"),
    include_str!("../../migrations/sqlite/0002_node.sql"),
    include_str!("../../migrations/sqlite/0003_keys_and_accounts.sql"),
    include_str!("../../migrations/sqlite/0004_webhooks.sql"),
];

pub(super) const CLOCK_MS: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// SQLite keeps the transaction when a constraint or a trigger refuses a statement. It may have
/// rolled everything back when the disk is full, memory is short or reading fails.
pub(super) fn kind(error: &dyn DatabaseError) -> Option<Kind> {
    const SQLITE_CONSTRAINT: u32 = 19;
    let error = error.try_downcast_ref::<SqliteError>()?;
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    Some(match code {
        Some(code) if code & 0xff == SQLITE_CONSTRAINT => Kind::Statement,
        Some(_) | None => Kind::Failed,
    })
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    options: SqliteConnectOptions,
    timeout: Duration,
}

impl Database {
    /// Makes the file if it isn't there, for its owner only.
    pub(super) fn at(path: &Path, timeout: Duration) -> Result<Self, OpenError> {
        create(path).map_err(|error| OpenError::File {
            path: path.to_owned(),
            error,
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(timeout)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        Ok(Database {
            path: path.to_owned(),
            options,
            timeout,
        })
    }

    /// A lock that only one server holds; it ends with the file.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
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

    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        Ok(Connection(self.options.connect().await?))
    }

    pub(super) fn readers(&self) -> Readers {
        let pool = PoolOptions::<Sqlite>::new()
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(self.timeout)
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

#[derive(Debug)]
pub(crate) struct Connection(SqliteConnection);

impl Connection {
    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        rows(&mut self.0, sql, values).await
    }

    pub(super) async fn execute(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<(), StoreError> {
        bound(sql, values).execute(&mut self.0).await?;
        Ok(())
    }

    /// Several statements without values.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(sql).execute(&mut self.0).await?;
        Ok(())
    }

    /// Moves the log into the database file, and closes.
    pub(super) async fn close(mut self) -> Result<(), StoreError> {
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)", &[]).await?;
        Ok(self.0.close().await?)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Readers(SqlitePool);

impl Readers {
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.0.acquire().await?;
        rows(&mut connection, sql, values).await
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

fn bound(
    sql: &'static str,
    values: &[Value<'_>],
) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
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
    Ok(rows.into_iter().map(Row::Sqlite).collect())
}

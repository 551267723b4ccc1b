//! SQLite: one file, one process that serves.

mod readers;

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{FromSql, ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{ErrorCode, ToSql};

pub(crate) use self::readers::Readers;
use super::error::Kind;
use super::{OpenError, Row, StoreError, Value};

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;
/// Savepoints keep what they may have to undo in memory rather than in a file that is made for it; 16 MiB of
/// pages are kept; the log is moved into the database after 16 MiB.
const SETTINGS: &str =
    "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096";
/// A file that just became SQLite's may be busy without waiting for anybody: how soon to look again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Forward only; a database that has more than these is newer than this program.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_ledger.sql"),
    include_str!("../../migrations/sqlite/0002_node.sql"),
    include_str!("../../migrations/sqlite/0003_keys_and_accounts.sql"),
    include_str!("../../migrations/sqlite/0004_webhooks.sql"),
    include_str!("../../migrations/sqlite/0005_retention.sql"),
    include_str!("../../migrations/sqlite/0006_key_idempotency.sql"),
    include_str!("../../migrations/sqlite/0007_model_limits.sql"),
];

pub(super) const CLOCK_MS: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// SQLite keeps the transaction when a constraint or a trigger refuses a statement. It may have
/// rolled everything back when the disk is full, memory is short or reading fails.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Kind::Statement,
            Some(_) | None => Kind::Failed,
        };
        StoreError::new(error.to_string(), kind)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    timeout: Duration,
}

impl Database {
    /// Makes the file if it isn't there, for its owner only.
    pub(super) fn at(path: &Path, timeout: Duration) -> Result<Self, OpenError> {
        create(path).map_err(|error| OpenError::File {
            path: path.to_owned(),
            error,
        })?;
        Ok(Database {
            path: path.to_owned(),
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

    /// Blocks, as all that a connection does.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let connection = rusqlite::Connection::open(&self.path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.busy_timeout(self.timeout)?;
        self.write_ahead(&connection)?;
        connection.execute_batch(SETTINGS)?;
        Ok(Connection(connection))
    }

    /// Two that make the same file don't wait for each other here: SQLite says at once that it is busy.
    fn write_ahead(&self, connection: &rusqlite::Connection) -> Result<(), StoreError> {
        let mut left = self.timeout;
        loop {
            let error = match connection.execute_batch("PRAGMA journal_mode = WAL") {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || left.is_zero() {
                return Err(error.into());
            }
            std::thread::sleep(BUSY_PAUSE);
            left = left.saturating_sub(BUSY_PAUSE);
        }
    }

    pub(super) fn readers(&self) -> Readers {
        Readers::new(self.clone())
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

/// Its functions block the thread: the writer has one of its own.
#[derive(Debug)]
pub(crate) struct Connection(rusqlite::Connection);

impl Connection {
    pub(super) fn rows(
        &self,
        sql: &'static str,
        values: &[impl ToSql],
    ) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.0.prepare_cached(sql)?;
        // SQLite takes `$2` for a name, and numbers names as it meets them.
        for index in 1..=statement.parameter_count() {
            let name = statement.parameter_name(index).unwrap_or_default();
            let number = name
                .get(1..)
                .and_then(|number| number.parse::<usize>().ok());
            let value = number.and_then(|number| values.get(number.checked_sub(1)?));
            let value = value.ok_or_else(|| {
                StoreError::contradiction(format!("parameter {name} has no value"))
            })?;
            statement.raw_bind_parameter(index, value)?;
        }
        let columns = statement.column_count();
        let mut answer = statement.raw_query();
        let mut rows = Vec::new();
        while let Some(row) = answer.next()? {
            let row: Result<Vec<_>, _> = (0..columns).map(|column| row.get(column)).collect();
            rows.push(Row::Sqlite(row?));
        }
        Ok(rows)
    }

    /// Several statements without values.
    pub(super) fn script(&self, sql: &'static str) -> Result<(), StoreError> {
        Ok(self.0.execute_batch(sql)?)
    }

    fn only_read(&self) -> Result<(), StoreError> {
        self.script("PRAGMA query_only = ON")
    }

    /// Moves the log into the database file, and closes.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.script("PRAGMA wal_checkpoint(TRUNCATE)")?;
        self.0.close().map_err(|(_, error)| error.into())
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Integer(integer) => integer.map_or(ValueRef::Null, ValueRef::Integer),
            Value::Text(text) => {
                text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
            }
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<Value<'_>> for Owned {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Integer(integer) => integer.map_or(Owned::Null, Owned::Integer),
            Value::Text(text) => text.map_or(Owned::Null, |text| Owned::Text(text.to_owned())),
            Value::Bytes(bytes) => Owned::Blob(bytes.to_vec()),
        }
    }
}

/// What a column has, if it is of that type.
pub(super) fn column<T: FromSql>(row: &[Owned], column: usize) -> Result<T, StoreError> {
    let value = row.get(column).map_or(ValueRef::Null, ValueRef::from);
    T::column_result(value).map_err(|error| {
        StoreError::contradiction(format!("column {column} can't be read: {error}"))
    })
}

//! SQLite: one file, one process that serves.

mod file;
mod readers;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{FromSql, ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ToSql};
use tempfile::TempDir;

use self::file::Place;
pub(crate) use self::readers::Readers;
use super::error::{Kind, Trouble};
use super::{OpenError, Row, StoreError, Value};

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;
/// Savepoints keep what they may have to undo in memory rather than in a file that is made for it; 16 MiB of
/// pages are kept; the log is moved into the database after 16 MiB.
const SETTINGS: &str =
    "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096";
const ONLY_READ: &str = "PRAGMA query_only = ON";
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
    include_str!("../../migrations/sqlite/0008_guards.sql"),
    include_str!("../../migrations/sqlite/0009_deleted_accounts.sql"),
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
        let trouble = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Trouble::ReadOnly,
            Some(ErrorCode::CannotOpen) => Trouble::Moved,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Locked,
            Some(
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure,
            ) => Trouble::Damaged,
            Some(_) | None => Trouble::Other,
        };
        StoreError::new(error.to_string(), kind).with(trouble)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    timeout: Duration,
    access: Access,
    /// Where the files of a server have to be.
    place: Option<Arc<Place>>,
}

/// How connections use the file.
#[derive(Debug, Clone)]
enum Access {
    Write,
    /// The file may be written by others meanwhile.
    Read,
    /// Nothing is written by anybody, not even SQLite's own files: a backup on a read-only disk.
    ReadFixed,
    /// A copy that is gone with the last connection.
    ReadCopy(Arc<TempDir>),
}

impl Database {
    pub(super) fn at(path: &Path, timeout: Duration) -> Self {
        Database {
            path: path.to_owned(),
            timeout,
            access: Access::Write,
            place: None,
        }
    }

    /// Makes the file if there never was one, for its owner only. An error if it was there once and is gone.
    pub(super) fn prepare(&mut self) -> Result<(), OpenError> {
        self.path = file::prepare(&self.path)?;
        Ok(())
    }

    /// From now on connections only read, also where nothing can be written. An error if there is no file.
    pub(super) fn prepare_reading(&mut self) -> Result<(), OpenError> {
        self.path = file::prepare_reading(&self.path)?;
        self.access = Access::Read;
        let probe = |database: &Self| {
            let sql = "SELECT 1 FROM sqlite_schema LIMIT 1";
            let none: [Value<'_>; 0] = [];
            database.connect()?.rows(sql, &none)
        };
        let Err(error) = probe(self) else {
            return Ok(());
        };
        if !file::has_log(&self.path) {
            self.access = Access::ReadFixed;
        } else {
            self.access = Access::ReadCopy(Arc::new(file::copy(&self.path)?));
        }
        // What else was wrong with it is wrong still, and the first error says it best.
        probe(self).map_err(|_| error)?;
        Ok(())
    }

    /// A lock on the file itself, whatever its name; only one server holds it. The descriptor stays open until the last
    /// connection of this process is closed: closing any descriptor of a file drops the locks that SQLite has on it.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
        file::lock(&self.path)
    }

    /// From now on the files have to stay where they are.
    pub(super) fn watch(&mut self) -> Result<(), OpenError> {
        self.place = Some(Arc::new(Place::of(&self.path)?));
        Ok(())
    }

    pub(super) fn check_place(&self) -> Result<(), StoreError> {
        self.place.as_ref().map_or(Ok(()), |place| place.check())
    }

    /// A connection that writes is opened anew.
    pub(super) fn forget_log(&self) {
        if let Some(place) = &self.place {
            place.forget_log();
        }
    }

    /// Notes beside the file that there is a database with this id.
    pub(super) fn remember(&self, id: &str) -> Result<(), OpenError> {
        file::remember(&self.path, id)
    }

    /// Blocks, as all that a connection does.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let connection = self.open()?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.busy_timeout(self.timeout)?;
        connection.execute_batch(SETTINGS)?;
        match self.access {
            Access::Write => self.write_ahead(&connection)?,
            Access::Read | Access::ReadFixed | Access::ReadCopy(_) => {
                connection.execute_batch(ONLY_READ)?;
            }
        }
        Ok(Connection(connection))
    }

    /// Never makes the file: one that has vanished is not to be taken for an empty one.
    fn open(&self) -> rusqlite::Result<rusqlite::Connection> {
        let shared = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let usual = OpenFlags::SQLITE_OPEN_READ_WRITE | shared;
        match &self.access {
            Access::Write | Access::Read => {
                rusqlite::Connection::open_with_flags(&self.path, usual)
            }
            Access::ReadCopy(folder) => {
                rusqlite::Connection::open_with_flags(file::copied(folder), usual)
            }
            Access::ReadFixed => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | shared;
                rusqlite::Connection::open_with_flags(fixed(&self.path), flags)
            }
        }
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

/// The address by which SQLite takes a file that nobody writes.
fn fixed(path: &Path) -> PathBuf {
    let mut address = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'?' | b'#' | b'%' => address.extend(format!("%{byte:02X}").bytes()),
            _ => address.push(byte),
        }
    }
    address.extend(b"?immutable=1");
    OsString::from_vec(address).into()
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
        self.script(ONLY_READ)
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

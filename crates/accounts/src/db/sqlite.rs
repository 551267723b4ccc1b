//! SQLite: one file, one process that serves.

mod file;
mod readers;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ToSql, ffi};
use tempfile::TempDir;

use self::file::Place;

use crate::db::error::{Kind, Trouble};
use crate::db::{OpenError, Row, StoreError, Value};

pub(crate) use self::readers::Readers;

/// The number of prepared statements that a connection caches.
const STATEMENTS_MAX: usize = 256;
/// Savepoints keep their journal in memory rather than in a temporary file; the page cache has 16 MiB; the log is
/// checkpointed into the database after 16 MiB.
const SETTINGS: &str =
    "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4096";
const ONLY_READ: &str = "PRAGMA query_only = ON";
/// The pause before `PRAGMA journal_mode = WAL` is tried again: it reports busy at once when another process runs it.
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
    include_str!("../../migrations/sqlite/0010_probe.sql"),
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
            Some(ErrorCode::SystemIoFailure) if is_about_writing(&error) => Trouble::Other,
            Some(
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure,
            ) => Trouble::Damaged,
            Some(_) | None => Trouble::Other,
        };
        StoreError::new(error.to_string(), kind).with(trouble)
    }
}

/// Whether the system refused to write, as beyond a limit of a file's size: then nothing is damaged.
fn is_about_writing(error: &rusqlite::Error) -> bool {
    let codes = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMSIZE,
    ];
    let error = error.sqlite_error();
    error.is_some_and(|error| codes.contains(&error.extended_code))
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    path: PathBuf,
    timeout: Duration,
    access: Access,
    /// The files that a server has open, to notice when they are moved or replaced. `None` in other processes.
    place: Option<Arc<Place>>,
}

/// How connections use the file.
#[derive(Debug, Clone)]
enum Access {
    Write,
    /// Read-only; other processes may write the file meanwhile.
    Read,
    /// No process writes, and SQLite creates no files of its own: a backup on a read-only disk.
    ReadFixed,
    /// A temporary copy, deleted with the last connection: for a backup on a read-only disk that has a log.
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

    /// Creates the file, for its owner only, if there never was one. An error if there was one and it is gone.
    pub(super) fn prepare(&mut self) -> Result<(), OpenError> {
        self.path = file::prepare(&self.path)?;
        Ok(())
    }

    /// Makes all later connections read-only, also on a read-only disk. An error if there is no file.
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
        // If the second attempt fails too, the first error explains it best.
        probe(self).map_err(|_| error)?;
        Ok(())
    }

    /// Locks the file itself, whatever its name, so that only one server holds it. The descriptor must stay open until
    /// this process's last connection is closed: closing any descriptor of a file drops the locks that SQLite has on
    /// it.
    pub(super) fn lock(&self) -> Result<File, OpenError> {
        file::lock(&self.path)
    }

    /// Remembers which files are open, for [`check_place`](Database::check_place).
    pub(super) fn watch(&mut self) -> Result<(), OpenError> {
        self.place = Some(Arc::new(Place::of(&self.path)?));
        Ok(())
    }

    pub(super) fn check_place(&self) -> Result<(), StoreError> {
        self.place.as_ref().map_or(Ok(()), |place| place.check())
    }

    /// Forgets the log's inode, as the writer is about to open a new connection, which may create a new log.
    pub(super) fn forget_log(&self) {
        if let Some(place) = &self.place {
            place.forget_log();
        }
    }

    /// An error if there was a database here that had books.
    pub(super) fn refuse_without_books(&self) -> Result<(), OpenError> {
        file::refuse_without_books(&self.path)
    }

    /// Writes this database's id into a file beside it.
    pub(super) fn remember(&self, id: &str) -> Result<(), OpenError> {
        file::remember(&self.path, id)
    }

    /// Opens a connection. Blocks, like all of a connection's calls.
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

    /// Never creates the file: a database that has vanished must not be mistaken for an empty one.
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

    /// Switches to write-ahead logging. If another process does that at the same time, SQLite reports busy at once
    /// instead of waiting, so this tries again until the timeout.
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

/// The `file:` URI with `immutable=1`, by which SQLite opens a file that no process writes.
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

/// A connection whose calls block the thread: the writer has a thread of its own.
#[derive(Debug)]
pub(crate) struct Connection(rusqlite::Connection);

impl Connection {
    pub(super) fn rows(
        &self,
        sql: &'static str,
        values: &[impl ToSql],
    ) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.0.prepare_cached(sql)?;
        // SQLite treats `$2` as a name, and numbers names in the order in which it meets them.
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

    /// Runs several statements without parameters.
    pub(super) fn script(&self, sql: &'static str) -> Result<(), StoreError> {
        Ok(self.0.execute_batch(sql)?)
    }

    fn only_read(&self) -> Result<(), StoreError> {
        self.script(ONLY_READ)
    }

    /// Checkpoints the log into the database file, and closes.
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

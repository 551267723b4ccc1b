//! The database's file: created for its owner only, told apart from a lost one, and locked by the server that uses it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::db::{OpenError, StoreError};

/// Suffix of the file with the database's id. Where it exists, there was a database once.
const ID: &str = "-id";
/// Suffix of SQLite's write-ahead log: changes that aren't in the database's file yet.
const LOG: &str = "-wal";
/// Suffix of SQLite's index of the log, shared by the processes that have the database open.
const INDEX: &str = "-shm";
/// The beginning of the names of files that a server keeps beside the database for unsettled requests.
const UNSETTLED: &str = "unsettled-";
/// How often the lock is tried, with [`LOCK_PAUSE`] between: a tool that looks for a server holds it for a moment.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Finds the file behind symbolic links, or creates it if there never was one. A database that is missing or empty
/// beside traces of an earlier one was lost, which is an error: the next backup would be of the new, empty one.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error| failure(path, error);
    let Some((path, found)) = find(path)? else {
        refuse_traces(path)?;
        create(path).map_err(failed)?;
        return fs::canonicalize(path).map_err(failed);
    };
    if found.len() == 0 {
        refuse_traces(&path)?;
    }
    if found.nlink() > 1 {
        return Err(OpenError::HardLinked(path));
    }
    refuse_other_names(&path, found.len())?;
    let protected = protect(&path, found.mode());
    permit(&path, Access::READ_OK, "read")?;
    permit(&path, Access::WRITE_OK, "write")?;
    if !beside(&path, INDEX).exists() {
        permit(folder(&path), Access::WRITE_OK, "make files in")?;
    }
    match protected {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let what = "keep others from reading";
            return Err(OpenError::NoPermission { path, what });
        }
        protected => protected.map_err(failed)?,
    }
    Ok(path)
}

/// Finds the file for a process that only reads.
pub(super) fn prepare_reading(path: &Path) -> Result<PathBuf, OpenError> {
    match find(path)? {
        Some((path, found)) if found.len() > 0 => {
            permit(&path, Access::READ_OK, "read")?;
            refuse_other_names(&path, found.len())?;
            Ok(path)
        }
        Some(_) | None => {
            refuse_traces(path)?;
            Err(OpenError::Missing(path.to_owned()))
        }
    }
}

/// The file behind symbolic links. `None` if there is none.
fn find(path: &Path) -> Result<Option<(PathBuf, Metadata)>, OpenError> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        // A dangling link pointed to a database once, which is lost.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match fs::symlink_metadata(path) {
                Ok(_) => Err(lost(path, vec![path.to_owned()])),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(failure(path, error)),
    };
    let found = fs::metadata(&real).map_err(|error| failure(path, error))?;
    if !found.is_file() {
        return Err(failure(path, ErrorKind::IsADirectory.into()));
    }
    Ok(Some((real, found)))
}

fn failure(path: &Path, error: io::Error) -> OpenError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::PermissionDenied => OpenError::NoPermission { path, what: "open" },
        _ => OpenError::File { path, error },
    }
}

/// Says plainly what SQLite wouldn't: that this user may not do something with a file or a folder.
fn permit(path: &Path, access: Access, what: &'static str) -> Result<(), OpenError> {
    match accessat(CWD, path, access, AtFlags::EACCESS) {
        Err(Errno::ACCESS | Errno::PERM) => Err(OpenError::NoPermission {
            path: path.to_owned(),
            what,
        }),
        // Other troubles are told better by what is tried next.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn lost(path: &Path, traces: Vec<PathBuf>) -> OpenError {
    OpenError::Lost {
        path: path.to_owned(),
        traces,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Refuses a database that is missing or has no bytes beside what an earlier one has left: also beside a log, which may
/// have what was never moved into the database's file.
fn refuse_traces(path: &Path) -> Result<(), OpenError> {
    let log = beside(path, LOG);
    let mut traces = traces(path);
    traces.extend((size(&log) > 0).then_some(log));
    refuse_if_any(path, traces)
}

/// Refuses a database without books beside what an earlier one has left. SQLite has read the log by then.
pub(super) fn refuse_without_books(path: &Path) -> Result<(), OpenError> {
    refuse_if_any(path, traces(path))
}

fn refuse_if_any(path: &Path, traces: Vec<PathBuf>) -> Result<(), OpenError> {
    match traces.is_empty() {
        true => Ok(()),
        false => Err(lost(path, traces)),
    }
}

/// The files by which an earlier database is known: its id, and what its server kept for unsettled requests.
fn traces(path: &Path) -> Vec<PathBuf> {
    let folder = folder(path);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let unsettled = entries.map(|entry| entry.file_name());
    let unsettled = unsettled.filter(|name| name.as_bytes().starts_with(UNSETTLED.as_bytes()));
    let mut traces: Vec<_> = unsettled.map(|name| folder.join(name)).collect();
    traces.push(beside(path, ID));
    traces.retain(|trace| size(trace) > 0);
    traces.sort();
    traces
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|name| !name.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// The size of a file; 0 if there is none.
fn size(path: &Path) -> u64 {
    let found = fs::metadata(path).ok().filter(Metadata::is_file);
    found.map_or(0, |found| found.len())
}

/// Copies the database and its log to a temporary folder: SQLite can't read a log on a read-only disk.
pub(super) fn copy(path: &Path) -> Result<TempDir, OpenError> {
    let copy = || {
        let folder = tempfile::tempdir()?;
        let copy = copied(&folder);
        fs::copy(path, &copy)?;
        fs::copy(beside(path, LOG), beside(&copy, LOG))?;
        Ok(folder)
    };
    permit(&beside(path, LOG), Access::READ_OK, "read")?;
    copy().map_err(|error| failure(path, error))
}

pub(super) fn copied(folder: &TempDir) -> PathBuf {
    folder.path().join("copy.db")
}

pub(super) fn has_log(path: &Path) -> bool {
    size(&beside(path, LOG)) > 0
}

fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    // Another process may create the file at the same time, so an existing one is no error.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

/// Restricts the file to its owner, as it may have been created with wider permissions; SQLite gives the files beside
/// it the same ones. Changed by name: closing a descriptor would drop the locks that this process has on the file.
fn protect(path: &Path, mode: u32) -> io::Result<()> {
    if mode & 0o777 == 0o600 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(0o600)) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Ok(()),
        changed => changed,
    }
}

/// Refuses a file that a server uses under another name, such as one mounted into a container. SQLite keeps its log and
/// its readers' locks beside the *name* of a file: with two names there are two logs, and each process would undo what
/// the other writes.
fn refuse_other_names(path: &Path, len: u64) -> Result<(), OpenError> {
    if len == 0 || beside(path, INDEX).exists() {
        return Ok(());
    }
    let Ok(file) = File::open(path) else {
        return Ok(());
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(OpenError::OtherName(path.to_owned())),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |error| failure(path, error);
    let file = File::open(path).map_err(failed)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Err(OpenError::InUse(path.to_owned()))
}

/// Writes the id beside the database, durably, before anything is served.
pub(super) fn remember(path: &Path, id: &str) -> Result<(), OpenError> {
    let note = beside(path, ID);
    if fs::read_to_string(&note).is_ok_and(|found| found.trim_end() == id) {
        return Ok(());
    }
    let written = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&note)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        File::open(folder(&note))?.sync_all()
    };
    written().map_err(|error| failure(&note, error))
}

/// The files that a server has open, to notice when they are replaced or removed.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    database: Inode,
    /// The log, once it exists. SQLite deletes it with its last connection, and creates a new one later.
    log: Mutex<Option<Inode>>,
    index: Mutex<Option<Inode>>,
}

type Inode = (u64, u64);

fn inode(path: &Path) -> Option<Inode> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

impl Place {
    pub(super) fn of(path: &Path) -> Result<Self, OpenError> {
        let found = fs::metadata(path).map_err(|error| failure(path, error))?;
        Ok(Place {
            path: path.to_owned(),
            database: (found.dev(), found.ino()),
            log: Mutex::new(None),
            index: Mutex::new(None),
        })
    }

    /// Forgets the log and its index: SQLite may create new ones.
    pub(super) fn forget_log(&self) {
        *locked(&self.log) = None;
        *locked(&self.index) = None;
    }

    /// An error if one of the files was moved, removed or replaced: what is written to a file without a name is lost,
    /// and no other process sees it.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match inode(&self.path) {
            Some(found) if found == self.database => {}
            Some(_) => {
                return Err(StoreError::moved(
                    "another file stands in the database's place: stop the server, or put the database back",
                ));
            }
            None => {
                return Err(StoreError::moved(
                    "the database's file is gone from where it was: stop the server, or put it back",
                ));
            }
        }
        if !is_still(&self.log, &beside(&self.path, LOG)) {
            return Err(StoreError::moved(
                "the database's log (-wal) was taken away: stop the server with SIGTERM, which saves what is in it",
            ));
        }
        // Other processes would create another index, and each would write the log as if it were alone.
        if !is_still(&self.index, &beside(&self.path, INDEX)) {
            return Err(StoreError::moved(
                "the log's index (-shm) was taken away: put it back, or stop the server with SIGTERM",
            ));
        }
        Ok(())
    }
}

/// Whether a file that SQLite created still has the inode that was seen first. Remembers the first one.
fn is_still(known: &Mutex<Option<Inode>>, path: &Path) -> bool {
    let found = inode(path);
    let mut known = locked(known);
    match *known {
        None => *known = found,
        Some(_) => return found == *known,
    }
    true
}

fn locked(known: &Mutex<Option<Inode>>) -> MutexGuard<'_, Option<Inode>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

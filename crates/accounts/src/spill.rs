//! Where the ends of requests go while the database can't be written: a file beside it, whose room was taken when the
//! process started, so that it can be written when the disk is full.
//!
//! Each open request that needs one has a slot, which says what was delivered, or how the request ended. The process that
//! wrote it brings it into the database when that is back, or else the next one that starts.

mod slots;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use self::slots::SlotFile;
use crate::ledger::hold::Checkpoints;
use crate::ledger::settle::{Outcome, Source};
use crate::money::Counts;

/// Files of a folder: processes that serve from one PostgreSQL may have the same one.
const FILES_MAX: usize = 64;
/// Jobs that may wait for the disk.
const QUEUE: usize = 1024;

/// Where ends of requests are kept while the database can't be written.
#[derive(Debug, Clone)]
pub struct SpillOptions {
    pub folder: PathBuf,
    /// How many there may be.
    pub requests_max: usize,
}

/// It isn't on the disk.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the end of a request can't be kept beside the database: {0}")]
pub struct SpillError(Arc<str>);

impl SpillError {
    pub(crate) fn new(cause: impl ToString) -> Self {
        SpillError(cause.to_string().into())
    }
}

/// What is kept of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) hold: i64,
    pub(crate) request: String,
    pub(crate) attempt: u32,
    pub(crate) counts: Counts,
    pub(crate) at: Timestamp,
    pub(crate) what: KeptWhat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptWhat {
    /// So much was delivered by then, and it went on.
    Delivered,
    Ended {
        outcome: Outcome,
        source: Source,
    },
}

enum Job {
    Keep(Kept, Wanted),
    Free(i64),
}

/// Who is told when something is on the disk, or isn't.
enum Wanted {
    Reply(oneshot::Sender<Result<(), SpillError>>),
    /// The checkpoints of a hold, of which the one with this number is kept.
    Reached(Arc<Checkpoints>, u64),
}

impl Wanted {
    fn tell(self, kept: Result<(), SpillError>) {
        match (self, kept) {
            // The task that asked may have gone.
            (Wanted::Reply(reply), kept) => drop(reply.send(kept)),
            (Wanted::Reached(checkpoints, number), Ok(())) => checkpoints.reach(number),
            (Wanted::Reached(..), Err(_)) => {}
        }
    }
}

/// The way to the file, which is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Spill {
    /// Gone when it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    used: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Spill {
    /// Takes the room for it. Returns what processes that are gone have left of requests of this database.
    pub(crate) fn open(
        options: &SpillOptions,
        database: &str,
    ) -> Result<(Self, Vec<Kept>), SpillError> {
        let (file, found) = take(options, database)?;
        let used = Arc::new(AtomicUsize::new(found.len()));
        let (sender, receiver) = mpsc::channel(QUEUE);
        let seen = Arc::clone(&used);
        let thread = std::thread::Builder::new()
            .name("spill".to_owned())
            .spawn(move || run(file, receiver, &seen))
            .map_err(SpillError::new)?;
        let spill = Spill {
            jobs: Some(sender),
            used,
            thread: Some(thread),
        };
        Ok((spill, found))
    }

    /// Returns once it is on the disk.
    pub(crate) async fn keep(&self, kept: Kept) -> Result<(), SpillError> {
        let (reply, answer) = oneshot::channel();
        let closed = || SpillError::new("it is closed");
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        let sent = jobs.send(Job::Keep(kept, Wanted::Reply(reply))).await;
        sent.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Notes what was delivered, if there is time for it: the next note says more.
    pub(crate) fn note(&self, kept: Kept, checkpoints: Arc<Checkpoints>, number: u64) {
        self.try_send(Job::Keep(kept, Wanted::Reached(checkpoints, number)));
    }

    /// The request's end is in the database. A slot that can't be freed now is freed by the next start, which finds the
    /// request ended.
    pub(crate) fn free(&self, hold: i64) {
        if self.used() > 0 {
            self.try_send(Job::Free(hold));
        }
    }

    fn try_send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A queue that is full has no room for what can be done without.
            let _ = jobs.try_send(job);
        }
    }

    /// Requests of which something is kept.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps ends of requests has panicked");
        }
    }
}

/// The first file of the folder that no living process has, with what the files of all dead ones have.
fn take(options: &SpillOptions, database: &str) -> Result<(SlotFile, Vec<Kept>), SpillError> {
    std::fs::create_dir_all(&options.folder).map_err(|error| at(&options.folder, error))?;
    let mut own: Option<SlotFile> = None;
    for number in 0..FILES_MAX {
        let path = options.folder.join(format!("unsettled-{number}"));
        if own.is_some() && !path.exists() {
            continue;
        }
        let opened = SlotFile::open(&path, options.requests_max, database);
        let Some(file) = opened.map_err(|error| at(&path, error))? else {
            continue;
        };
        match &mut own {
            None => own = Some(file),
            Some(own) => own.take_over(file).map_err(|error| at(&path, error))?,
        }
    }
    let own = own.ok_or_else(|| SpillError::new("other processes have all its files"))?;
    let found = own.all();
    Ok((own, found))
}

fn at(path: &Path, error: impl ToString) -> SpillError {
    SpillError::new(format!("{}: {}", path.display(), error.to_string()))
}

/// Many that come at once share one wait for the disk.
fn run(mut file: SlotFile, mut jobs: mpsc::Receiver<Job>, used: &AtomicUsize) {
    let mut told = Vec::new();
    while let Some(first) = jobs.blocking_recv() {
        let mut next = Some(first);
        let mut written = false;
        while let Some(job) = next {
            match job {
                Job::Keep(kept, wanted) => {
                    // A file that was moved is written, too, but that doesn't count as kept.
                    written = true;
                    told.push((wanted, file.put(&kept).map_err(SpillError::new)));
                }
                Job::Free(hold) => file.free(hold),
            }
            next = jobs.try_recv().ok();
        }
        let synced = match written {
            true => file.sync().map_err(SpillError::new),
            false => Ok(()),
        };
        used.store(file.used(), Ordering::Relaxed);
        for (wanted, put) in told.drain(..) {
            wanted.tell(put.and(synced.clone()));
        }
    }
}

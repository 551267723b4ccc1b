//! The spill file: where the ends of requests are noted while the database can't be written. Its space is allocated
//! when the process starts, so that it can be written when the disk is full (docs/decisions/0041).
//!
//! Each open request that needs one has a slot, which says what was delivered, or how the request ended. The process
//! that wrote a slot brings it into the database when that can be written again; if it dies before, the next process
//! that starts does.

mod error;
mod slots;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

pub use self::error::SpillError;
use self::slots::SlotFile;

use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::settlement::{Outcome, Source};
use crate::tokens::Counts;

/// The most spill files in a folder: processes that serve from one PostgreSQL may share a folder.
const FILES_MAX: usize = 64;
/// Jobs that may wait for the thread that writes.
const QUEUE: usize = 1024;

/// Where the ends of requests are noted while the database can't be written.
#[derive(Debug, Clone)]
pub struct SpillOptions {
    pub folder: PathBuf,
    /// The number of slots: the most requests that can be noted at a time.
    pub requests_max: usize,
}

/// The note about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) hold: i64,
    pub(crate) request: String,
    pub(crate) attempt: u32,
    pub(crate) counts: Counts,
    pub(crate) at: Timestamp,
    pub(crate) what: KeptWhat,
}

impl Kept {
    /// Whether this says as much of the request as `other` does: checkpoints may come late, after newer ones and after the end.
    fn covers(&self, other: &Kept) -> bool {
        match (self.what, other.what) {
            (KeptWhat::Delivered, KeptWhat::Delivered) => {
                self.counts.completion >= other.counts.completion
            }
            (KeptWhat::Ended { .. }, KeptWhat::Delivered) => true,
            (_, KeptWhat::Ended { .. }) => self == other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptWhat {
    /// The tokens delivered by then; the request went on.
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

/// The place where the outcome of a write is reported.
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

/// The handle of the spill file, which is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Spill {
    /// `None` once this is being dropped, which ends the thread.
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
    /// Takes a file of the folder and allocates its slots. Returns it with the notes of dead processes about this
    /// database's requests.
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

    /// Writes a note, and returns once it is on the disk.
    pub(crate) async fn keep(&self, kept: Kept) -> Result<(), SpillError> {
        let (reply, answer) = oneshot::channel();
        let closed = || SpillError::new("it is closed");
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        let sent = jobs.send(Job::Keep(kept, Wanted::Reply(reply))).await;
        sent.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Notes what was delivered, as the checkpoint with this number. Dropped if the queue is full: the next note says more.
    pub(crate) fn note(&self, kept: Kept, checkpoints: Arc<Checkpoints>, number: u64) {
        self.try_send(Job::Keep(kept, Wanted::Reached(checkpoints, number)));
    }

    /// Frees the slot of a request whose end is in the database. If it can't be freed now, the next start frees it, as
    /// it finds the request ended.
    pub(crate) fn free(&self, hold: i64) {
        if self.used() > 0 {
            self.try_send(Job::Free(hold));
        }
    }

    fn try_send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // Both kinds of jobs may be dropped when the queue is full.
            let _ = jobs.try_send(job);
        }
    }

    /// The number of requests that have a note.
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

/// The first file of the folder that no living process has locked, with the notes from the files of all dead processes.
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

/// Writes notes as they come. Notes that are queued together share one fsync.
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

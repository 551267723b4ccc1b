//! The one task that writes, with group commit.
//!
//! The writer takes all queued operations (at most 256), runs them in one transaction, commits, and only then answers,
//! so that many requests share one fsync. Operations decide before they change anything, so that a refused one usually
//! leaves nothing to undo. If one has to be undone alone nevertheless, the whole transaction runs once more with each
//! operation in a savepoint of its own: the refused one doesn't spoil the others.
//!
//! Operations are idempotent: if a transaction was rolled back because of a conflict, or the connection broke and it
//! isn't known whether the COMMIT succeeded, all of them run again, and find what they did before.

mod ledger;
mod operation;

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::operation::{Applied, Job, Queued, batch_job, job};
use crate::db::{Connection, Database, StoreError};
use crate::failpoint;
use crate::health::Health;
use crate::ids::AccountId;
use crate::node::{Beat, Node};

pub(crate) use self::ledger::{BatchOutcomes, Ledger, LedgerNotices};
pub(crate) use self::operation::{BatchOperation, Operation, TxResult};

/// The most operations of one transaction.
const BATCH_MAX: usize = 256;
/// How often a transaction is tried when it conflicts with others, or the connection breaks.
const ATTEMPTS_MAX: u32 = 5;

/// Sends operations to the writer.
#[derive(Debug)]
pub(crate) struct WriterHandle<L: Ledger> {
    jobs: mpsc::Sender<Box<dyn Job<L>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The outcome of queueing an operation without waiting.
#[derive(Debug)]
pub(crate) enum Asked<A> {
    Queued(oneshot::Receiver<A>),
    Full,
    Closed,
}

impl<L: Ledger> WriterHandle<L> {
    /// A handle without a writer, for a process that only reads.
    pub(crate) fn none() -> Self {
        let (jobs, _) = mpsc::channel(1);
        WriterHandle {
            jobs,
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// `lock` is held until the writer has ended. Until then the writer also renews the lease of `node`.
    pub(crate) fn start(
        database: Database,
        connection: Connection,
        ledger: L,
        queue: usize,
        lock: Option<File>,
        node: Option<Arc<Node>>,
        health: Arc<Health>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let closing = CancellationToken::new();
        let writer = Writer {
            database,
            connection: Some(connection),
            jobs: receiver,
            ledger,
            closing: closing.clone(),
            health,
            beat: node.map(Beat::new),
            _lock: lock,
        };
        let tasks = TaskTracker::new();
        if writer.database.blocks() {
            let (thread, ended) = Thread::start(writer);
            tasks.spawn(async move {
                // Also returns if the thread panics, as that drops the sender.
                let _ = ended.await;
                drop(thread);
            });
        } else {
            tasks.spawn(writer.run());
        }
        WriterHandle {
            jobs: sender,
            closing,
            tasks,
        }
    }

    /// Queues an operation at once, or not at all.
    pub(crate) fn ask<O: Operation>(&self, operation: O) -> Asked<O::Answer> {
        self.try_queue(job(operation))
    }

    /// Queues an operation that may be written in a batch, at once or not at all.
    pub(crate) fn ask_in_batch<O: BatchOperation<L>>(&self, operation: O) -> Asked<O::Answer> {
        self.try_queue(batch_job(operation))
    }

    /// Queues an operation, waiting for a place in the queue, and waits for its commit.
    pub(crate) async fn write<O: Operation>(&self, operation: O) -> O::Answer {
        self.queue(job(operation)).await
    }

    /// Queues an operation that may be written in a batch, and waits for its commit.
    pub(crate) async fn write_in_batch<O: BatchOperation<L>>(&self, operation: O) -> O::Answer {
        self.queue(batch_job(operation)).await
    }

    fn try_queue<A>(&self, (job, answer): Queued<L, A>) -> Asked<A> {
        match self.jobs.try_send(job) {
            Ok(()) => Asked::Queued(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Asked::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Asked::Closed,
        }
    }

    async fn queue<A>(&self, (job, answer): Queued<L, A>) -> A {
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(job).await {
            job.answer(Err(StoreError::closed()));
        }
        answer
            .await
            .expect("the writer answers every job that it has taken, unless the runtime ends")
    }

    /// Writes the queued operations, then ends the writer.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The thread of a writer whose database calls block. It ends with its runtime, if it isn't closed before.
struct Thread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start<L: Ledger>(writer: Writer<L>) -> (Self, oneshot::Receiver<()>) {
        let stop = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let until = stop.clone();
        let run = move || {
            let _end: oneshot::Sender<()> = end;
            futures::executor::block_on(until.run_until_cancelled(writer.run()));
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(run)
            .expect("a thread can be started when the database is opened");
        let thread = Some(thread);
        (Thread { stop, thread }, ended)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer's thread has panicked");
        }
    }
}

struct Writer<L: Ledger> {
    database: Database,
    connection: Option<Connection>,
    jobs: mpsc::Receiver<Box<dyn Job<L>>>,
    ledger: L,
    closing: CancellationToken,
    health: Arc<Health>,
    beat: Option<Beat>,
    _lock: Option<File>,
}

/// How a transaction is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    Usual,
    /// Each operation in a savepoint.
    Savepoints,
}

/// The outcome of an attempt.
enum Tried {
    Committed,
    /// An operation without a savepoint has to be undone alone: try again with [`Care::Savepoints`].
    WithoutSavepoint,
}

/// A transaction that failed.
#[derive(Debug)]
struct Failure {
    error: StoreError,
    /// The transaction may have been committed nevertheless.
    doubtful: bool,
}

impl<L: Ledger> Writer<L> {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut open = true;
        while open {
            tokio::select! {
                taken = self.jobs.recv_many(&mut batch, BATCH_MAX) => open = taken > 0,
                () = self.ledger.changed() => {}
                () = Beat::due(&mut self.beat) => {}
                () = self.closing.cancelled(), if !self.jobs.is_closed() => self.jobs.close(),
            }
            while batch.len() < BATCH_MAX
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            self.commit(&mut batch).await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = leave(self.beat.take(), connection).await
        {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }

    /// Runs one transaction for the whole batch. If it fails, each caller is told, and the next transaction gets a new
    /// connection.
    async fn commit(&mut self, batch: &mut Vec<Box<dyn Job<L>>>) {
        let notices = self.ledger.take();
        let due = self.beat.as_ref().is_some_and(Beat::is_due);
        if batch.is_empty() && notices.is_empty() && !due {
            return;
        }
        let written = self.write(batch, &notices).await;
        let outcome = match &written {
            Ok(()) => Ok(()),
            Err(Failure { error, .. }) => Err(error.clone()),
        };
        // A hold that was refused has written nothing.
        let with_hold = batch
            .iter()
            .any(|job| job.writes_as_much_as_a_hold() && (outcome.is_err() || job.is_done()));
        self.health.wrote(outcome, with_hold);
        if let Err(Failure { error, doubtful }) = &written {
            tracing::error!(%error, doubtful, operations = batch.len(), "a transaction failed");
            self.connection = None;
            self.ledger.put_back(notices);
            if *doubtful {
                batch.iter().for_each(|job| job.doubt());
            }
        } else if !notices.is_empty() {
            failpoint::pass("checkpoint-committed");
            self.ledger.written(&notices);
        }
        let committed = written.map_err(|failure| failure.error);
        for job in batch.drain(..) {
            job.answer(committed.clone());
        }
    }

    /// Tries again after conflicts and broken connections, at most [`ATTEMPTS_MAX`] times in all.
    async fn write(
        &mut self,
        batch: &mut [Box<dyn Job<L>>],
        notices: &L::Notices,
    ) -> Result<(), Failure> {
        let mut doubtful = false;
        let mut care = Care::Usual;
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            let reused = self.connection.is_some();
            let error = match self.attempt(batch, notices, care, &mut doubtful).await {
                Ok(Tried::Committed) => return Ok(()),
                Ok(Tried::WithoutSavepoint) => None,
                Err(error) => Some(error),
            };
            care = Care::Savepoints;
            attempts_left = attempts_left.saturating_sub(1);
            let contended = error.as_ref().is_none_or(StoreError::is_contention);
            let rolled_back = match &mut self.connection {
                Some(connection) if contended => connection.rollback().await.is_ok(),
                Some(_) | None => false,
            };
            if !rolled_back {
                self.connection = None;
            }
            let Some(error) = error else { continue };
            // A connection that was idle may have been broken for long; a new one tells whether the database is there.
            if attempts_left == 0 || !(contended || reused && error.is_lost_connection()) {
                return Err(Failure { error, doubtful });
            }
            tracing::debug!(%error, "a transaction is tried again");
        }
    }

    async fn attempt(
        &mut self,
        batch: &mut [Box<dyn Job<L>>],
        notices: &L::Notices,
        care: Care,
        doubtful: &mut bool,
    ) -> Result<Tried, StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.database.connect_writer().await?),
        };
        self.database.check_place()?;
        if let Some(beat) = &mut self.beat {
            beat.tell(connection).await?;
        }
        connection.begin().await?;
        batch.iter_mut().for_each(|job| job.reset());
        let touched = batch.iter().filter_map(|job| job.account());
        let touched: BTreeSet<_> = touched.chain(notices.accounts()).collect();
        let touched: Vec<_> = touched.into_iter().map(AccountId::as_str).collect();
        let together = care == Care::Usual && connection.has_many();
        // A single balance needs no lock order, unless something else is locked before it.
        if (touched.len() > 1 && !together) || !notices.is_empty() {
            connection.lock_balances(&touched).await?;
        }
        notices.write(connection).await?;
        if together {
            let operations = batch.iter().enumerate();
            let operations: Vec<_> = operations
                .filter_map(|(at, job)| Some((at, job.batch_op()?)))
                .collect();
            let outcomes = write_batch::<L>(connection, &touched, &operations).await?;
            drop(operations);
            let Some(outcomes) = outcomes else {
                return Ok(Tried::WithoutSavepoint);
            };
            for (at, outcome) in outcomes {
                if let Some(job) = batch.get_mut(at) {
                    job.take_outcome(outcome);
                }
            }
        }
        for job in batch.iter_mut().filter(|job| !job.is_applied()) {
            if !apply(&mut **job, connection, care).await? {
                return Ok(Tried::WithoutSavepoint);
            }
        }
        let committed = connection.commit().await;
        if let Err(error) = &committed {
            *doubtful |= error.leaves_doubt();
        }
        committed.map(|()| Tried::Committed)
    }
}

/// Writes the operations that fit into a batch. `None` if that failed and the transaction has to begin anew without it.
async fn write_batch<L: Ledger>(
    connection: &mut Connection,
    accounts: &[&str],
    operations: &[(usize, L::BatchOp<'_>)],
) -> Result<Option<BatchOutcomes<L>>, StoreError> {
    match L::write_batch(connection, accounts, operations).await {
        Err(error) if !error.spoils_transaction() => {
            tracing::debug!(%error, "operations are written one after the other");
            Ok(None)
        }
        written => written,
    }
}

/// Applies an operation. Returns whether the transaction can go on: not if there was something to undo and no
/// savepoint.
async fn apply<L: Ledger>(
    job: &mut dyn Job<L>,
    connection: &mut Connection,
    care: Care,
) -> Result<bool, StoreError> {
    let guarded = care == Care::Savepoints || job.is_risky();
    if guarded {
        connection.savepoint().await?;
    }
    connection.mark();
    match job.apply(connection).await {
        Applied::Spoiled(error) => return Err(error),
        Applied::Done if guarded => connection.release().await?,
        Applied::Refused | Applied::Failed if guarded => connection.undo().await?,
        Applied::Done => {}
        Applied::Refused => return Ok(!connection.has_changed()),
        Applied::Failed => return Ok(false),
    }
    Ok(true)
}

async fn leave(beat: Option<Beat>, mut connection: Connection) -> Result<(), StoreError> {
    if let Some(beat) = beat {
        beat.leave(&mut connection).await?;
    }
    connection.close().await
}

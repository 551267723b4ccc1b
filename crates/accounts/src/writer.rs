//! The one task that writes, with group commit.
//!
//! The writer takes all queued operations (at most 256), runs them in one transaction, commits, and only then answers,
//! so that many requests share one fsync. Operations decide before they change anything, so that a refused one usually
//! leaves nothing to undo. If one has to be undone alone nevertheless, the whole transaction runs once more with each
//! operation in a savepoint of its own: the refused one doesn't spoil the others.
//!
//! Operations are idempotent: if a transaction was rolled back because of a conflict, or the connection broke and it
//! isn't known whether the COMMIT succeeded, all of them run again, and find what they did before.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::AccountId;
use crate::db::{Connection, Database, StoreError};
use crate::failpoint;
use crate::health::Health;
use crate::ledger::many::{self, Plain};
use crate::ledger::notices::{Noted, Notices};
use crate::node::{Beat, Node};

/// The most operations of one transaction.
const BATCH_MAX: usize = 256;
/// How often a transaction is tried when it conflicts with others, or the connection breaks.
const ATTEMPTS_MAX: u32 = 5;

/// The outcome of an operation: done or refused, or an error if the database failed.
pub(crate) type Written<Done, Refused> = Result<Result<Done, Refused>, StoreError>;

/// An operation that the writer runs in a transaction. `apply` may run more than once, `answer` runs once.
pub(crate) trait Operation: Send + Sync + 'static {
    /// The result of an operation that was done.
    type Done: Send;
    /// Why nothing was changed: a refusal, or the first result if this is a replay.
    type Refused: Send;
    type Answer: Send;

    fn apply(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Written<Self::Done, Self::Refused>> + Send;

    /// The account whose balance the operation changes, if it changes only one.
    fn account(&self) -> Option<&AccountId> {
        None
    }

    /// Whether its success shows that a hold could be written, too.
    fn writes_as_much_as_a_hold(&self) -> bool {
        self.account().is_some()
    }

    /// Whether the operation may well be refused after it has changed something: then it gets a savepoint at once.
    fn is_risky(&self) -> bool {
        true
    }

    /// The operation as a [`Plain`], if it may be written together with others.
    fn plain(&self) -> Option<Plain<'_>> {
        None
    }

    /// The operation's result, once [`many::write`] has written it.
    fn plainly(&self, _written: many::Written) -> Option<Self::Done> {
        None
    }

    /// Called if the answer will be an error although the transaction may have been committed.
    fn doubt(&self) {}

    /// Makes the answer, after the commit or its failure.
    fn answer(self, outcome: Written<Self::Done, Self::Refused>) -> Self::Answer;
}

/// A type-erased [`Operation`], so that a queue can hold it.
trait Job: Send {
    fn account(&self) -> Option<&AccountId>;
    fn is_risky(&self) -> bool;
    fn plain(&self) -> Option<Plain<'_>>;
    /// Forgets the outcome: the operation isn't applied yet, or its transaction was rolled back.
    fn reset(&mut self);
    fn plainly(&mut self, written: many::Written);
    fn is_applied(&self) -> bool;
    fn writes_as_much_as_a_hold(&self) -> bool;
    /// Whether it has been applied and not refused.
    fn is_done(&self) -> bool;
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Applied>;
    fn doubt(&self);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

enum Applied {
    Done,
    Refused,
    Failed,
    /// The operation has failed, and has spoiled the transaction.
    Spoiled(StoreError),
}

struct Waiting<O: Operation> {
    operation: O,
    outcome: Option<Written<O::Done, O::Refused>>,
    reply: oneshot::Sender<O::Answer>,
}

impl<O: Operation> Job for Waiting<O> {
    fn account(&self) -> Option<&AccountId> {
        self.operation.account()
    }

    fn is_risky(&self) -> bool {
        self.operation.is_risky()
    }

    fn plain(&self) -> Option<Plain<'_>> {
        self.operation.plain()
    }

    fn reset(&mut self) {
        self.outcome = None;
    }

    fn plainly(&mut self, written: many::Written) {
        self.outcome = self.operation.plainly(written).map(|done| Ok(Ok(done)));
    }

    fn is_applied(&self) -> bool {
        self.outcome.is_some()
    }

    fn writes_as_much_as_a_hold(&self) -> bool {
        self.operation.writes_as_much_as_a_hold()
    }

    fn is_done(&self) -> bool {
        matches!(self.outcome, Some(Ok(Ok(_))))
    }

    fn doubt(&self) {
        self.operation.doubt();
    }

    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Applied> {
        Box::pin(async move {
            let outcome = self.operation.apply(connection).await;
            let applied = match &outcome {
                Ok(Ok(_)) => Applied::Done,
                Ok(Err(_)) => Applied::Refused,
                Err(error) if error.spoils_transaction() => Applied::Spoiled(error.clone()),
                Err(_) => Applied::Failed,
            };
            self.outcome = Some(outcome);
            applied
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::closed()),
            (Err(error), _) => Err(error),
        };
        // The caller may have gone. The answer is then dropped, and a hold in it is ended.
        let _ = self.reply.send(self.operation.answer(outcome));
    }
}

/// Sends operations to the writer.
#[derive(Debug)]
pub(crate) struct WriterHandle {
    jobs: mpsc::Sender<Box<dyn Job>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// The outcome of queueing an operation without waiting.
#[derive(Debug)]
pub(crate) enum Asked<A> {
    Queued(oneshot::Receiver<A>),
    Full,
    Closed,
}

impl WriterHandle {
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
        notices: Arc<Notices>,
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
            notices,
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
        let (job, answer) = job(operation);
        match self.jobs.try_send(job) {
            Ok(()) => Asked::Queued(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Asked::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Asked::Closed,
        }
    }

    /// Queues an operation, waiting for a place in the queue, and waits for its commit.
    pub(crate) async fn write<O: Operation>(&self, operation: O) -> O::Answer {
        let (job, answer) = job(operation);
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

fn job<O: Operation>(operation: O) -> (Box<dyn Job>, oneshot::Receiver<O::Answer>) {
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting {
        operation,
        outcome: None,
        reply,
    };
    (Box::new(waiting), answer)
}

/// The thread of a writer whose database calls block. It ends with its runtime, if it isn't closed before.
struct Thread {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(writer: Writer) -> (Self, oneshot::Receiver<()>) {
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

struct Writer {
    database: Database,
    connection: Option<Connection>,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    notices: Arc<Notices>,
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

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut open = true;
        while open {
            tokio::select! {
                taken = self.jobs.recv_many(&mut batch, BATCH_MAX) => open = taken > 0,
                () = self.notices.changed() => {}
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
    async fn commit(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        let noted = self.notices.take();
        let due = self.beat.as_ref().is_some_and(Beat::is_due);
        if batch.is_empty() && noted.is_empty() && !due {
            return;
        }
        let written = self.write(batch, &noted).await;
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
            self.notices.keep_beside(&noted);
            self.notices.put_back(noted);
            if *doubtful {
                batch.iter().for_each(|job| job.doubt());
            }
        } else if !noted.is_empty() {
            failpoint::pass("checkpoint-committed");
            self.notices.written(&noted);
        }
        let committed = written.map_err(|failure| failure.error);
        for job in batch.drain(..) {
            job.answer(committed.clone());
        }
    }

    /// Tries again after conflicts and broken connections, at most [`ATTEMPTS_MAX`] times in all.
    async fn write(&mut self, batch: &mut [Box<dyn Job>], noted: &Noted) -> Result<(), Failure> {
        let mut doubtful = false;
        let mut care = Care::Usual;
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            let reused = self.connection.is_some();
            let error = match self.attempt(batch, noted, care, &mut doubtful).await {
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
        batch: &mut [Box<dyn Job>],
        noted: &Noted,
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
        let touched: BTreeSet<_> = touched.chain(noted.accounts()).collect();
        let touched: Vec<_> = touched.into_iter().map(AccountId::as_str).collect();
        let together = care == Care::Usual && connection.has_many();
        // A single balance needs no lock order, unless something else is locked before it.
        if (touched.len() > 1 && !together) || !noted.is_empty() {
            connection.lock_balances(&touched).await?;
        }
        noted.write(connection).await?;
        if together {
            let plain = batch.iter().enumerate();
            let plain: Vec<_> = plain
                .filter_map(|(at, job)| Some((at, job.plain()?)))
                .collect();
            let Some(written) = write_plain(connection, &touched, &plain).await? else {
                return Ok(Tried::WithoutSavepoint);
            };
            for (at, written) in written {
                if let Some(job) = batch.get_mut(at) {
                    job.plainly(written);
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

/// Writes the plain operations together. `None` if that failed and the transaction has to begin anew without it.
async fn write_plain(
    connection: &mut Connection,
    accounts: &[&str],
    plain: &[(usize, Plain<'_>)],
) -> Result<Option<Vec<(usize, many::Written)>>, StoreError> {
    match many::write(connection, accounts, plain).await {
        Err(error) if !error.spoils_transaction() => {
            tracing::debug!(%error, "operations are written one after the other");
            Ok(None)
        }
        written => written,
    }
}

/// Applies an operation. Returns whether the transaction can go on: not if there was something to undo and no
/// savepoint.
async fn apply(
    job: &mut dyn Job,
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

//! The one task that writes, with group commit.
//!
//! It takes everything that waits, runs it in one transaction, each operation in a savepoint of its
//! own, commits, and only then answers. So many requests share one fsync, and one that is refused
//! does not spoil the others.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::{Connection, Database, StoreError};
use crate::ledger::notices::{Noted, Notices};

/// Operations of one transaction.
const BATCH_MAX: usize = 256;

/// What became of an operation: done or refused, unless the database failed.
pub(crate) type Written<Done, Refused> = Result<Result<Done, Refused>, StoreError>;

/// Something to write. `apply` may run more than once, `answer` runs once.
pub(crate) trait Operation: Send + Sync + 'static {
    /// What the transaction found out.
    type Done: Send;
    /// Why nothing was changed.
    type Refused: Send;
    type Answer: Send;

    fn apply(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Written<Self::Done, Self::Refused>> + Send;

    /// After the commit, or after it failed.
    fn answer(self, outcome: Written<Self::Done, Self::Refused>) -> Self::Answer;
}

/// An [`Operation`] whose types are forgotten, so that a queue can hold it.
trait Job: Send {
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Applied>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

enum Applied {
    Keep,
    Undo,
    Abort(StoreError),
}

struct Waiting<O: Operation> {
    operation: O,
    outcome: Option<Written<O::Done, O::Refused>>,
    reply: oneshot::Sender<O::Answer>,
}

impl<O: Operation> Job for Waiting<O> {
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Applied> {
        Box::pin(async move {
            let outcome = self.operation.apply(connection).await;
            let applied = match &outcome {
                Ok(Ok(_)) => Applied::Keep,
                Err(error) if error.spoils_transaction() => Applied::Abort(error.clone()),
                Ok(Err(_)) | Err(_) => Applied::Undo,
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
        // Whoever asked may have gone. The answer is dropped then, and with it what it holds.
        let _ = self.reply.send(self.operation.answer(outcome));
    }
}

/// The way to the writer.
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

/// What comes of asking without waiting.
#[derive(Debug)]
pub(crate) enum Asked<A> {
    Queued(oneshot::Receiver<A>),
    Full,
    Closed,
}

impl WriterHandle {
    /// `lock` is held until the writer has ended.
    pub(crate) fn start(
        database: Database,
        connection: Connection,
        notices: Arc<Notices>,
        queue: usize,
        lock: Option<File>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let closing = CancellationToken::new();
        let writer = Writer {
            database,
            connection: Some(connection),
            jobs: receiver,
            notices,
            closing: closing.clone(),
            _lock: lock,
        };
        let tasks = TaskTracker::new();
        tasks.spawn(writer.run());
        WriterHandle {
            jobs: sender,
            closing,
            tasks,
        }
    }

    /// Queues at once, or not at all.
    pub(crate) fn ask<O: Operation>(&self, operation: O) -> Asked<O::Answer> {
        let (job, answer) = job(operation);
        match self.jobs.try_send(job) {
            Ok(()) => Asked::Queued(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Asked::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Asked::Closed,
        }
    }

    /// Waits for a place in the queue, and for the commit.
    pub(crate) async fn write<O: Operation>(&self, operation: O) -> O::Answer {
        let (job, answer) = job(operation);
        if let Err(mpsc::error::SendError(job)) = self.jobs.send(job).await {
            job.answer(Err(StoreError::closed()));
        }
        answer
            .await
            .expect("the writer answers every job that it has taken, unless the runtime ends")
    }

    /// Writes what waits, then ends.
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

struct Writer {
    database: Database,
    connection: Option<Connection>,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    notices: Arc<Notices>,
    closing: CancellationToken,
    _lock: Option<File>,
}

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut open = true;
        while open {
            tokio::select! {
                taken = self.jobs.recv_many(&mut batch, BATCH_MAX) => open = taken > 0,
                () = self.notices.changed() => {}
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
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }

    /// One transaction for all of them. When it fails, each is told, and the next one begins on a
    /// connection of its own.
    async fn commit(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        let noted = self.notices.take();
        if batch.is_empty() && noted.is_empty() {
            return;
        }
        let committed = self.write(batch, &noted).await;
        if let Err(error) = &committed {
            tracing::error!(%error, operations = batch.len(), "a transaction failed");
            self.connection = None;
            self.notices.put_back(noted);
        }
        for job in batch.drain(..) {
            job.answer(committed.clone());
        }
    }

    async fn write(&mut self, batch: &mut [Box<dyn Job>], noted: &Noted) -> Result<(), StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.database.connect().await?),
        };
        connection.begin().await?;
        noted.write(connection).await?;
        for job in batch {
            connection.savepoint().await?;
            match job.apply(connection).await {
                Applied::Keep => connection.release().await?,
                Applied::Undo => connection.undo().await?,
                Applied::Abort(error) => return Err(error),
            }
        }
        connection.commit().await
    }
}

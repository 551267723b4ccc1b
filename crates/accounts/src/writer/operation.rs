//! Operations, and how the writer's queue holds them.

use std::fmt;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::db::{Connection, StoreError};
use crate::ids::AccountId;
use crate::writer::ledger::Ledger;

/// The outcome of an operation in its transaction: done or refused, or an error if the database failed.
pub(crate) type TxResult<Done, Refused> = Result<Result<Done, Refused>, StoreError>;

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
    ) -> impl Future<Output = TxResult<Self::Done, Self::Refused>> + Send;

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

    /// Called if the answer will be an error although the transaction may have been committed.
    fn doubt(&self) {}

    /// Makes the answer, after the commit or its failure.
    fn answer(self, outcome: TxResult<Self::Done, Self::Refused>) -> Self::Answer;
}

/// An operation that can share statements with others.
pub(crate) trait BatchOperation<L: Ledger>: Operation {
    /// The operation as an item of a batch, if it can be one now.
    fn batch_op(&self) -> Option<L::BatchOp<'_>>;

    /// The operation's result, once it was written in a batch.
    fn from_batch(operation: &Self, outcome: L::BatchOutcome) -> Option<Self::Done>;
}

/// A type-erased [`Operation`], so that a queue can hold it.
pub(super) trait Job<L: Ledger>: Send {
    fn account(&self) -> Option<&AccountId>;
    fn is_risky(&self) -> bool;
    fn batch_op(&self) -> Option<L::BatchOp<'_>>;
    /// Forgets the outcome: the operation isn't applied yet, or its transaction was rolled back.
    fn reset(&mut self);
    /// Takes over the result from a batch.
    fn take_outcome(&mut self, outcome: L::BatchOutcome);
    fn is_applied(&self) -> bool;
    fn writes_as_much_as_a_hold(&self) -> bool;
    /// Whether it has been applied and not refused.
    fn is_done(&self) -> bool;
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Applied>;
    fn doubt(&self);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

impl<L: Ledger> fmt::Debug for dyn Job<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

pub(super) enum Applied {
    Done,
    Refused,
    Failed,
    /// The operation has failed, and has spoiled the transaction.
    Spoiled(StoreError),
}

/// A job, and where its answer comes.
pub(super) type Queued<L, A> = (Box<dyn Job<L>>, oneshot::Receiver<A>);

/// The job of an operation that is always written alone.
pub(super) fn job<L: Ledger, O: Operation>(operation: O) -> Queued<L, O::Answer> {
    queued(operation, None)
}

/// The job of an operation that may be written in a batch.
pub(super) fn batch_job<L: Ledger, O: BatchOperation<L>>(operation: O) -> Queued<L, O::Answer> {
    let batching = Batching {
        batch_op: O::batch_op,
        from_batch: O::from_batch,
    };
    queued(operation, Some(batching))
}

fn queued<L: Ledger, O: Operation>(
    operation: O,
    batching: Option<Batching<L, O>>,
) -> Queued<L, O::Answer> {
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting {
        operation,
        batching,
        outcome: None,
        reply,
    };
    (Box::new(waiting), answer)
}

struct Waiting<L: Ledger, O: Operation> {
    operation: O,
    batching: Option<Batching<L, O>>,
    outcome: Option<TxResult<O::Done, O::Refused>>,
    reply: oneshot::Sender<O::Answer>,
}

/// The functions of a [`BatchOperation`].
struct Batching<L: Ledger, O: Operation> {
    batch_op: for<'a> fn(&'a O) -> Option<L::BatchOp<'a>>,
    from_batch: fn(&O, L::BatchOutcome) -> Option<O::Done>,
}

impl<L: Ledger, O: Operation> Job<L> for Waiting<L, O> {
    fn account(&self) -> Option<&AccountId> {
        self.operation.account()
    }

    fn is_risky(&self) -> bool {
        self.operation.is_risky()
    }

    fn batch_op(&self) -> Option<L::BatchOp<'_>> {
        let batching = self.batching.as_ref()?;
        (batching.batch_op)(&self.operation)
    }

    fn reset(&mut self) {
        self.outcome = None;
    }

    fn take_outcome(&mut self, outcome: L::BatchOutcome) {
        let batching = self.batching.as_ref();
        let done = batching.and_then(|batching| (batching.from_batch)(&self.operation, outcome));
        self.outcome = done.map(|done| Ok(Ok(done)));
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

//! The part of the ledger that the writer runs beside the operations of its queue.

use crate::db::{Connection, StoreError};
use crate::ids::AccountId;

/// The ledger as the writer knows it: notices, which are writes that no caller waits for, and batches of operations.
pub(crate) trait Ledger: Send + Sync + Sized + 'static {
    type Notices: LedgerNotices;
    /// An operation that shares statements with others.
    type BatchOp<'a>: Send + Sync;
    /// The result of an operation that was written in a batch.
    type BatchOutcome: Send;

    /// Waits until there are notices that wake the writer.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// The notices that wait, to be written in the next transaction.
    fn take(&self) -> Self::Notices;

    /// Called once the notices are in the database.
    fn written(&self, notices: &Self::Notices);

    /// Takes the notices back, as their transaction failed.
    fn put_back(&self, notices: Self::Notices);

    /// Writes the operations that fit into a batch, in their order, and returns the position and the result of each.
    /// The others are left to themselves. `None` if the database differs from what was assumed: then the transaction
    /// has to begin anew without this. `accounts` are those whose balances the transaction changes.
    fn write_batch(
        connection: &mut Connection,
        accounts: &[&str],
        operations: &[(usize, Self::BatchOp<'_>)],
    ) -> impl Future<Output = Result<Option<BatchOutcomes<Self>>, StoreError>> + Send;
}

/// The position and the result of each operation that was written in a batch.
pub(crate) type BatchOutcomes<L> = Vec<(usize, <L as Ledger>::BatchOutcome)>;

/// The notices of one transaction.
pub(crate) trait LedgerNotices: Send + Sync {
    fn is_empty(&self) -> bool;

    /// The accounts whose balances will be changed.
    fn accounts(&self) -> impl Iterator<Item = &AccountId>;

    fn write(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

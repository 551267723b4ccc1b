//! The ledger's side of the writer, beside operations: the notices that wait, and batches.

use std::sync::Arc;

use crate::db::{Connection, StoreError};
use crate::ledger::batch::{self, BatchOp, BatchOutcome};
use crate::ledger::notices::{Noted, Notices};
use crate::writer::{BatchOutcomes, Ledger};

#[derive(Debug)]
pub(crate) struct LedgerWrites {
    pub(crate) notices: Arc<Notices>,
}

impl Ledger for LedgerWrites {
    type Notices = Noted;
    type BatchOp<'a> = BatchOp<'a>;
    type BatchOutcome = BatchOutcome;

    async fn changed(&self) {
        self.notices.changed().await;
    }

    fn take(&self) -> Noted {
        self.notices.take()
    }

    fn written(&self, noted: &Noted) {
        self.notices.written(noted);
    }

    fn put_back(&self, noted: Noted) {
        self.notices.keep_beside(&noted);
        self.notices.put_back(noted);
    }

    async fn write_batch(
        connection: &mut Connection,
        accounts: &[&str],
        operations: &[(usize, Self::BatchOp<'_>)],
    ) -> Result<Option<BatchOutcomes<Self>>, StoreError> {
        batch::write(connection, accounts, operations).await
    }
}

//! Settling and releasing holds.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::db::{Connection, StoreError};
use crate::failpoint;
use crate::ids::AccountId;
use crate::ledger::batch::{BatchOp, BatchOutcome};
use crate::ledger::end::end;
use crate::ledger::ending::{EndKind, Ended, Ending};
use crate::ledger::hold::Hold;
use crate::ledger::settlement::Settlement;
use crate::ledger::writes::LedgerWrites;
use crate::money::Nanos;
use crate::writer::{BatchOperation, Operation, TxResult};

/// A settlement that failed: the hold is still open, and can be settled again.
#[derive(Debug, thiserror::Error)]
#[error("the hold was not settled: {error}")]
pub struct SettleError {
    pub hold: Hold,
    pub error: StoreError,
}

/// Ends a hold, which travels with the operation: it comes back if it could not be ended. If the caller has gone by
/// then, it is dropped, and so the writer ends it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) hold: Hold,
    pub(crate) kind: EndKind,
    pub(crate) now: Timestamp,
}

impl Operation for End {
    type Done = Ended;
    type Refused = Infallible;
    type Answer = Result<Nanos, SettleError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Ended, Infallible> {
        let ending = Ending {
            hold: self.hold.id(),
            kind: self.kind,
            now: self.now,
        };
        end(connection, &ending).await.map(Ok)
    }

    fn account(&self) -> Option<&AccountId> {
        Some(self.hold.account())
    }

    fn is_risky(&self) -> bool {
        false
    }

    fn answer(mut self, outcome: TxResult<Ended, Infallible>) -> Result<Nanos, SettleError> {
        match outcome {
            Ok(Ok(ended)) => {
                failpoint::pass("settlement-committed");
                self.hold.close();
                Ok(ended.charged)
            }
            Ok(Err(never)) => match never {},
            Err(error) => Err(SettleError {
                hold: self.hold,
                error,
            }),
        }
    }
}

impl BatchOperation<LedgerWrites> for End {
    fn batch_op(&self) -> Option<BatchOp<'_>> {
        let EndKind::Settle {
            counts,
            outcome,
            source,
        } = self.kind
        else {
            return None;
        };
        let settlement = Settlement {
            counts,
            outcome,
            source,
            now: self.now,
        };
        let hold = &self.hold;
        Some(BatchOp::Settle { hold, settlement })
    }

    fn from_batch(_: &Self, outcome: BatchOutcome) -> Option<Ended> {
        match outcome {
            BatchOutcome::Settled { charged } => Some(Ended {
                charged,
                used: true,
            }),
            BatchOutcome::Held { .. } => None,
        }
    }
}

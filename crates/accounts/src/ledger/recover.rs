//! Recovery: ends holds whose process is gone.

use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;

use crate::db::{Connection, StoreError, values};
use crate::failpoint;
use crate::ledger::checked;
use crate::ledger::end::end;
use crate::ledger::ending::{EndKind, Ending};
use crate::money::Nanos;
use crate::node::Node;
use crate::writer::{Operation, TxResult};

/// The result of a recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Holds charged for what they had delivered.
    pub settled: u64,
    /// Holds that had delivered nothing.
    pub released: u64,
    pub charged: Nanos,
}

impl Recovered {
    pub(crate) fn charge(&mut self, charged: Nanos) -> Result<(), StoreError> {
        self.add(Recovered {
            settled: 1,
            released: 0,
            charged,
        })
    }

    pub(crate) fn add(&mut self, more: Recovered) -> Result<(), StoreError> {
        self.settled = self.settled.saturating_add(more.settled);
        self.released = self.released.saturating_add(more.released);
        self.charged = checked(self.charged.checked_add(more.charged))?;
        Ok(())
    }
}

/// Ends the holds of processes that are gone, at their last checkpoints. On SQLite these are all other processes, as
/// only one serves; on PostgreSQL those that have no row any more, or lose it here.
#[derive(Debug)]
pub(crate) struct Recover {
    /// The process that recovers; its own holds are left alone.
    pub(crate) node: Arc<Node>,
    pub(crate) now: Timestamp,
}

impl Operation for Recover {
    type Done = Recovered;
    type Refused = Infallible;
    type Answer = Result<Recovered, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Recovered, Infallible> {
        if self.node.is_shared() {
            self.node.bury(connection).await?;
        }
        let mut recovered = Recovered::default();
        let open = connection
            .rows(
                "SELECT id, account FROM hold
                 WHERE state = 'open' AND node <> $1 AND node NOT IN (SELECT name FROM node)
                 ORDER BY account, id",
                values![&*self.node.lease().name],
            )
            .await?;
        let mut accounts = Vec::new();
        for row in &open {
            accounts.push(row.text(1)?);
        }
        accounts.dedup();
        let accounts: Vec<_> = accounts.iter().map(String::as_str).collect();
        connection.lock_balances(&accounts).await?;
        for row in open {
            failpoint::pass("recovery-begun");
            let ended = end(
                connection,
                &Ending {
                    hold: row.integer(0)?,
                    kind: EndKind::AtCheckpoint,
                    now: self.now,
                },
            )
            .await?;
            let count = if ended.used {
                &mut recovered.settled
            } else {
                &mut recovered.released
            };
            *count = count.saturating_add(1);
            recovered.charged = checked(recovered.charged.checked_add(ended.charged))?;
        }
        Ok(Ok(recovered))
    }

    fn answer(self, outcome: TxResult<Recovered, Infallible>) -> Result<Recovered, StoreError> {
        match outcome? {
            Ok(recovered) => {
                failpoint::pass("recovery-committed");
                Ok(recovered)
            }
            Err(never) => match never {},
        }
    }
}

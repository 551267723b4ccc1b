//! Holds whose process is gone.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::db::{Connection, StoreError, values};
use crate::failpoint;
use crate::ledger::checked;
use crate::ledger::settle::{Ending, How, end};
use crate::money::Nanos;
use crate::node::Node;
use crate::writer::{Operation, Written};

/// What was found open at boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Holds charged for what they had delivered.
    pub settled: u64,
    /// Holds that had delivered nothing.
    pub released: u64,
    pub charged: Nanos,
}

/// Ends holds whose owner is gone.
#[derive(Debug)]
pub(crate) struct Recover {
    /// The process that asks; it has not lost its own holds.
    pub(crate) node: Node,
    pub(crate) which: Lost,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    /// Of those that aren't alive: every hold.
    OfOthers,
    /// The same, but only holds of which nothing was heard for their whole lifetime.
    Overdue,
}

impl Operation for Recover {
    type Done = Recovered;
    type Refused = Infallible;
    type Answer = Result<Recovered, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> Written<Recovered, Infallible> {
        let (before, how) = match self.which {
            Lost::OfOthers => (Timestamp::MAX, How::AtCheckpoint),
            Lost::Overdue => (self.now, How::Expire),
        };
        let heard_after = self.node.heard_after(connection).await?;
        let mut recovered = Recovered::default();
        if !self.node.can_tell(connection, heard_after).await? {
            return Ok(Ok(recovered));
        }
        let open = connection
            .rows(
                "SELECT id, account FROM hold
                 WHERE state = 'open' AND node <> $1 AND expires_at <= $2
                     AND node NOT IN (SELECT name FROM node WHERE seen_at > $3)
                 ORDER BY account, id",
                values![&*self.node.name, before, heard_after],
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
                    how,
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
        self.node.bury(connection, heard_after).await?;
        Ok(Ok(recovered))
    }

    fn answer(self, outcome: Written<Recovered, Infallible>) -> Result<Recovered, StoreError> {
        match outcome? {
            Ok(recovered) => {
                failpoint::pass("recovery-committed");
                Ok(recovered)
            }
            Err(never) => match never {},
        }
    }
}

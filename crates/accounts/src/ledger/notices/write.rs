//! Writing the notices that wait.

use jiff::Timestamp;

use crate::clock::{self, CLOCK_GAP_MAX};
use crate::db::{Connection, StoreError, values};
use crate::events;
use crate::failpoint;
use crate::ids::AccountId;
use crate::ledger::end::end;
use crate::ledger::ending::{EndKind, Ending};
use crate::ledger::notices::{Checkpoint, Noted, UsedSecret};
use crate::tokens::sql::token_sql;
use crate::writer::LedgerNotices;

impl LedgerNotices for Noted {
    fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
            && self.abandoned.is_empty()
            && self.doubtful.is_empty()
            && self.used.is_empty()
            && self.exhausted.is_empty()
            && self.newest.is_none()
    }

    fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        let abandoned = self.abandoned.values().map(|(account, _)| account);
        let doubtful = self.doubtful.values().map(|doubtful| &doubtful.account);
        abandoned.chain(doubtful).chain(self.exhausted.keys())
    }

    async fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        for (&hold, checkpoint) in &self.checkpoints {
            write_checkpoint(connection, hold, checkpoint).await?;
            failpoint::pass("checkpoint-written");
        }
        for (&hold, &(_, now)) in &self.abandoned {
            end_abandoned(connection, hold, now).await?;
        }
        for ((request, attempt), doubtful) in &self.doubtful {
            let made = connection
                .row(
                    "SELECT id FROM hold WHERE request = $1 AND attempt = $2 AND node = $3 AND state = 'open'",
                    values![request.as_str(), *attempt, &*doubtful.node],
                )
                .await?;
            if let Some(hold) = made {
                end_abandoned(connection, hold.integer(0)?, doubtful.now).await?;
            }
        }
        for (key, &UsedSecret { at, current }) in &self.used {
            if current {
                let sql = "UPDATE api_key SET secret_used_at = $2 WHERE id = $1 AND secret_used_at IS NULL";
                connection.execute(sql, values![key.as_str(), at]).await?;
            }
            connection
                .execute(
                    "UPDATE api_key SET last_used_at = $2
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at NOT BETWEEN $2 AND $3)",
                    values![key.as_str(), at, at.saturating_add(CLOCK_GAP_MAX).unwrap_or(Timestamp::MAX)],
                )
                .await?;
        }
        for (account, &at) in &self.exhausted {
            events::exhausted(connection, account, at).await?;
        }
        if let Some(newest) = self.newest {
            clock::note(connection, newest).await?;
        }
        Ok(())
    }
}

async fn end_abandoned(
    connection: &mut Connection,
    hold: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection.savepoint().await?;
    let ending = Ending {
        hold,
        kind: EndKind::AtCheckpoint,
        now,
    };
    match end(connection, &ending).await {
        Ok(_) => connection.release().await,
        Err(error) if error.spoils_transaction() => Err(error),
        Err(error) => {
            // The hold stays open, and is recovered at the next boot.
            tracing::error!(%error, hold, "an abandoned hold can't be ended");
            connection.undo().await
        }
    }
}

async fn write_checkpoint(
    connection: &mut Connection,
    hold: i64,
    checkpoint: &Checkpoint,
) -> Result<(), StoreError> {
    connection
        .execute(
            token_sql!(
                "UPDATE hold SET checkpoint_at = $2, {@ = $#3} WHERE id = $1 AND state = 'open'"
            ),
            &checkpoint.counts.after(values![hold, checkpoint.now]),
        )
        .await
}

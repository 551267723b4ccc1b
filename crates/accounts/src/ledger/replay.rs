//! Brings notes from spill files into the database.

use std::convert::Infallible;

use crate::db::{Connection, StoreError, values};
use crate::ledger::end::end;
use crate::ledger::ending::{EndKind, Ending};
use crate::ledger::settlement::{Outcome, Source};
use crate::money::Nanos;
use crate::spill::{Kept, KeptWhat};
use crate::tokens::sql::token_sql;
use crate::writer::{Operation, TxResult};

/// Ends the hold of a request whose process is gone, as that process had noted in its spill file.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) kept: Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// The hold has ended; the amount is what the request cost in all.
    Ended(Nanos),
    /// The database has no such hold: it is older than the note.
    Unknown,
}

impl Operation for Replay {
    type Done = Replayed;
    type Refused = Infallible;
    type Answer = Result<Replayed, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Replayed, Infallible> {
        let Kept {
            hold,
            request,
            attempt,
            counts,
            at,
            what,
        } = &self.kept;
        // Locks the balance's row before the hold's, as recovery does.
        let found = connection
            .row(
                "UPDATE balance SET held = held
                 WHERE account = (SELECT account FROM hold WHERE id = $1 AND request = $2 AND attempt = $3)
                 RETURNING (SELECT state FROM hold WHERE id = $1)",
                values![*hold, request.as_str(), i64::from(*attempt)],
            )
            .await?;
        let Some(found) = found else {
            return Ok(Ok(Replayed::Unknown));
        };
        let open = found.text(0)? == "open";
        let kind = match *what {
            KeptWhat::Ended { outcome, source } => EndKind::Settle {
                counts: *counts,
                outcome,
                source,
            },
            KeptWhat::Delivered if !open => EndKind::Settle {
                counts: *counts,
                outcome: Outcome::Expired,
                source: Source::Estimated,
            },
            KeptWhat::Delivered => {
                let completion = i64::try_from(counts.completion).unwrap_or(i64::MAX);
                connection
                    .execute(
                        token_sql!(
                            "UPDATE hold SET checkpoint_at = $2, {@ = $#4}
                         WHERE id = $1 AND (checkpoint_at IS NULL OR completion < $3)"
                        ),
                        &counts.after(values![*hold, *at, completion]),
                    )
                    .await?;
                EndKind::AtCheckpoint
            }
        };
        let ending = Ending {
            hold: *hold,
            kind,
            now: *at,
        };
        let ended = end(connection, &ending).await?;
        Ok(Ok(Replayed::Ended(ended.charged)))
    }

    fn answer(self, outcome: TxResult<Replayed, Infallible>) -> Result<Replayed, StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

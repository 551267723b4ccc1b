//! Whether the database can be used: it answers, and the last write succeeded.
//!
//! On a disk that is nearly full a small write fits where a hold, which changes a dozen pages, doesn't. So a hold that
//! couldn't be written counts until one is, or until as much as one needs is written without any request.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Accounts;
use crate::db::{Connection, StoreError, values};
use crate::key;
use crate::writer::{Operation, Written};

/// An outcome older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(1);
/// The longest that [`Accounts::check`] waits for the database.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// More than a hold and its settlement write: a hold made SQLite's log 49,440 bytes longer in `tests/accounts/health.rs`.
const HOLD_BYTES: usize = 256 * 1024;

type Outcome = Result<(), StoreError>;

#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The outcome of the newest transaction, and when it ended.
    newest: Option<(Instant, Outcome)>,
    /// The newest failure of a transaction with a hold, or with as much as one; `None` once another one was committed.
    hold_failed: Option<(Instant, StoreError)>,
}

impl Health {
    /// Notes the outcome of a transaction. `with_hold` says whether it wrote a hold or as much as one, or was to.
    pub(crate) fn wrote(&self, outcome: Outcome, with_hold: bool) {
        let now = Instant::now();
        let mut known = self.known();
        if with_hold {
            known.hold_failed = outcome.clone().err().map(|error| (now, error));
        }
        known.newest = Some((now, outcome));
    }

    /// The outcome that the transactions of the last second tell, if there were any that tell something.
    fn fresh(&self) -> Option<Outcome> {
        let known = self.known();
        let (at, outcome) = match &known.hold_failed {
            Some((at, error)) => (*at, Err(error.clone())),
            None => known.newest.clone()?,
        };
        (at.elapsed() < FRESH).then_some(outcome)
    }

    fn has_hold_failed(&self) -> bool {
        self.known().hold_failed.is_some()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes rows that mean nothing, to see whether that works.
#[derive(Debug)]
struct Probe {
    /// A text that no compression makes smaller, to write as much as a hold.
    padding: Option<String>,
}

impl Operation for Probe {
    type Done = ();
    type Refused = Infallible;
    type Answer = Outcome;

    async fn apply(&self, connection: &mut Connection) -> Written<(), Infallible> {
        let sql = "UPDATE clock SET probed = probed + 1";
        connection.execute(sql, values![]).await?;
        if let Some(padding) = &self.padding {
            let sql = "INSERT INTO probe (one, padding) VALUES (1, $1)
                 ON CONFLICT (one) DO UPDATE SET padding = excluded.padding";
            connection.execute(sql, values![padding.as_str()]).await?;
        }
        Ok(Ok(()))
    }

    fn writes_as_much_as_a_hold(&self) -> bool {
        self.padding.is_some()
    }

    fn answer(self, outcome: Written<(), Infallible>) -> Outcome {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

impl Accounts {
    /// Whether the database answers and can be written. Something is written for it, if nothing was within a second; as
    /// much as a hold, if the last hold couldn't be written.
    pub async fn check(&self) -> Result<(), StoreError> {
        let looked = async {
            self.0.readers.row("SELECT 1", &[]).await?;
            // One probe at a time: callers that come meanwhile get the same outcome.
            let _one = self.0.looking.lock().await;
            match self.0.health.fresh() {
                Some(outcome) => outcome,
                None => {
                    let as_hold = self.0.health.has_hold_failed();
                    let padding = as_hold.then(|| key::random(HOLD_BYTES));
                    self.0.writer.write(Probe { padding }).await
                }
            }
        };
        let looked = tokio::time::timeout(LOOK_MAX, looked).await;
        looked.unwrap_or_else(|_| Err(StoreError::slow(LOOK_MAX)))
    }
}

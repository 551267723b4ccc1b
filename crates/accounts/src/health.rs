//! Whether the database can be used: it answers, and the last write succeeded.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Accounts;
use crate::db::{Connection, StoreError, values};
use crate::writer::{Operation, Written};

/// How long a transaction's outcome counts as the current state.
const FRESH: Duration = Duration::from_secs(1);
/// The longest that [`Accounts::check`] waits for the database.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// When the newest transaction ended, and its outcome.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Instant, Result<(), StoreError>)>>);

impl Health {
    pub(crate) fn wrote(&self, outcome: Result<(), StoreError>) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some((Instant::now(), outcome));
    }

    /// The outcome of the newest transaction, if it is less than [`FRESH`] old.
    fn fresh(&self) -> Option<Result<(), StoreError>> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, outcome) = newest.as_ref()?;
        (at.elapsed() < FRESH).then(|| outcome.clone())
    }
}

/// Changes a counter without a meaning, to see whether the database can be written.
#[derive(Debug)]
struct Probe;

impl Operation for Probe {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> Written<(), Infallible> {
        let sql = "UPDATE clock SET probed = probed + 1";
        connection.execute(sql, values![]).await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: Written<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

impl Accounts {
    /// Whether the database answers and can be written. Writes a probe if no transaction ended within the last second.
    pub async fn check(&self) -> Result<(), StoreError> {
        let looked = async {
            self.0.readers.row("SELECT 1", &[]).await?;
            // One probe at a time: callers that come meanwhile get the same outcome.
            let _one = self.0.looking.lock().await;
            match self.0.health.fresh() {
                Some(outcome) => outcome,
                None => self.0.writer.write(Probe).await,
            }
        };
        let looked = tokio::time::timeout(LOOK_MAX, looked).await;
        looked.unwrap_or_else(|_| Err(StoreError::slow(LOOK_MAX)))
    }
}

//! Whether the database can be used: it answers, and the last thing that was to be written was written.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::Accounts;
use crate::db::{Connection, StoreError, values};
use crate::writer::{Operation, Written};

/// What was written this long ago says nothing about now.
const FRESH: Duration = Duration::from_secs(1);
/// The longest that a look waits for the database.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What came of the newest transaction.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Instant, Result<(), StoreError>)>>);

impl Health {
    pub(crate) fn wrote(&self, outcome: Result<(), StoreError>) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some((Instant::now(), outcome));
    }

    /// What came of the newest transaction, if that was just now.
    fn fresh(&self) -> Option<Result<(), StoreError>> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, outcome) = newest.as_ref()?;
        (at.elapsed() < FRESH).then(|| outcome.clone())
    }
}

/// Changes a row that means nothing, to see whether that works.
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
    /// Whether the database answers and can be written. Something is written for it, if nothing was a second ago.
    pub async fn check(&self) -> Result<(), StoreError> {
        let looked = async {
            self.0.readers.row("SELECT 1", &[]).await?;
            // One look at a time: who comes meanwhile gets the same answer.
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

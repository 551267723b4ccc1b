//! Whether the database can be used now.

use std::convert::Infallible;
use std::time::Duration;

use crate::accounts::Accounts;
use crate::db::{Connection, StoreError, values};
use crate::ids::random;
use crate::writer::{Operation, TxResult};

/// The longest that [`Accounts::check`] waits for the database.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// More than a hold and its settlement write: a hold made SQLite's log 49,440 bytes longer in `tests/accounts/health.rs`.
const HOLD_BYTES: usize = 256 * 1024;

/// Changes rows that mean nothing, to see whether that works.
#[derive(Debug)]
struct Probe {
    /// A text that no compression makes smaller, to write as much as a hold.
    padding: Option<String>,
}

impl Operation for Probe {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
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

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
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
                    let padding = as_hold.then(|| random(HOLD_BYTES));
                    self.0.writer.write(Probe { padding }).await
                }
            }
        };
        let looked = tokio::time::timeout(LOOK_MAX, looked).await;
        looked.unwrap_or_else(|_| Err(StoreError::slow(LOOK_MAX)))
    }
}

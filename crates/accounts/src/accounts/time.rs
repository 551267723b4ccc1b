//! The time of the books, as other crates ask for it.

use jiff::Timestamp;
use tokio::time::Instant;

use crate::accounts::Accounts;
use crate::clock::{Accept, ClockState, near, newest};
use crate::db::StoreError;

impl Accounts {
    /// The time to use while the system's clock says `system`. Has it written down about once a minute.
    pub fn time(&self, system: Timestamp) -> Timestamp {
        let now = self.0.clock.read(system, Instant::now());
        if let Some(newest) = self.0.clock.to_note(now) {
            self.0.notices.newest(newest);
        }
        now
    }

    /// Whether the system's clock can be trusted, by what the database says now.
    pub async fn clock(&self, system: Timestamp) -> Result<ClockState, StoreError> {
        let newest = newest(&self.0.readers).await?;
        self.0.clock.learn(newest);
        Ok(ClockState {
            newest,
            system,
            trusted: near(system, newest),
        })
    }

    /// Makes the books trust `system`, however far it is from the newest time they have seen. A running server follows
    /// within a second.
    pub async fn accept_clock(&self, system: Timestamp) -> Result<(), StoreError> {
        self.0.writer.write(Accept { now: system }).await?;
        self.0.clock.learn(system);
        Ok(())
    }
}

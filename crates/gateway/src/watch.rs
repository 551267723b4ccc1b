//! Checks the database continually, so that the operator learns of a problem before callers do.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use weir_accounts::{ClockState, StoreError};

use crate::Gateway;

/// How often the database and the clock are checked.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// The problems that were logged and aren't over yet.
#[derive(Debug, Default)]
struct Said {
    broken: bool,
    untrusted: bool,
}

impl Gateway {
    /// Logs each problem with the database or the clock once when it begins and once when it is over, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut every = tokio::time::interval(WATCH_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Said::default();
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let looked = Box::pin(self.0.accounts.clock(self.0.clock.now()));
            let Some(looked) = stop.run_until_cancelled(looked).await else {
                return;
            };
            said.tell(looked);
        }
    }
}

impl Said {
    fn tell(&mut self, looked: Result<ClockState, StoreError>) {
        match looked {
            Ok(clock) => {
                if self.broken {
                    tracing::info!("the database can be used again");
                }
                self.broken = false;
                self.tell_clock(clock);
            }
            Err(error) => {
                if !self.broken {
                    let what = error.trouble().plainly();
                    tracing::error!(%error, "{what}: requests are refused until it can be used again");
                }
                self.broken = true;
            }
        }
    }

    fn tell_clock(&mut self, clock: ClockState) {
        let ClockState {
            newest,
            system,
            trusted,
        } = clock;
        if self.untrusted && trusted {
            tracing::info!("the clock can be trusted again");
        }
        if !self.untrusted && !trusted {
            tracing::error!(
                %newest,
                clock = %system,
                "the clock is more than a week away from the newest time in the books: nothing expires and nothing is \
                 deleted until it is set right, or accepted with `weir clock accept`"
            );
        }
        self.untrusted = !trusted;
    }
}

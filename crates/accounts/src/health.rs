//! Whether the database can be used: it answers, and the last write succeeded.
//!
//! On a disk that is nearly full a small write fits where a hold, which changes a dozen pages, doesn't. So a hold that
//! couldn't be written counts until one is, or until as much as one needs is written without any request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::db::StoreError;

/// An outcome older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(1);

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
    pub(crate) fn fresh(&self) -> Option<Outcome> {
        let known = self.known();
        let (at, outcome) = match &known.hold_failed {
            Some((at, error)) => (*at, Err(error.clone())),
            None => known.newest.clone()?,
        };
        (at.elapsed() < FRESH).then_some(outcome)
    }

    pub(crate) fn has_hold_failed(&self) -> bool {
        self.known().hold_failed.is_some()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

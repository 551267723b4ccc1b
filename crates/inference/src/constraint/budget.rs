//! Limits the work of compiling one grammar, and ends it when its caller no longer waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Limit on the steps of work for one grammar, each about a microsecond. Only the front end counts steps; llguidance has
/// limits of its own.
pub const COMPILE_STEPS_MAX: u64 = 600_000;
/// Steps between two checks of the cancel flag.
const CANCEL_CHECK_STEPS: u64 = 256;

/// A handle on a running compilation: cancels it, and tells how much work it has done. Clones refer to the same
/// compilation. A cancelled compilation ends soon, not at once.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    is_cancelled: AtomicBool,
    steps: AtomicU64,
}

impl Cancel {
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Relaxed)
    }

    /// Work done so far, in steps of about a microsecond.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }
}

/// Why a compilation ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The steps are used up.
    TooMuchWork,
    /// The caller no longer waits.
    Cancelled,
}

/// The steps that a compilation may still use. Every loop over a caller's input calls [`Budget::spend`] first.
#[derive(Debug)]
pub(crate) struct Budget {
    steps_left: u64,
    until_check: u64,
    cancel: Cancel,
}

impl Budget {
    pub(crate) fn new(steps: u64, cancel: Cancel) -> Self {
        Budget {
            steps_left: steps,
            until_check: 0,
            cancel,
        }
    }

    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), Stopped> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.until_check = self.until_check.saturating_sub(steps);
        if self.until_check == 0 {
            self.until_check = CANCEL_CHECK_STEPS;
            self.check()?;
        }
        self.cancel
            .0
            .steps
            .fetch_add(steps.min(self.steps_left), Ordering::Relaxed);
        match self.steps_left.checked_sub(steps) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => {
                self.steps_left = 0;
                Err(Stopped::TooMuchWork)
            }
        }
    }

    /// Fails if the compilation was cancelled. Call this before work that can't be interrupted.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.cancel.is_cancelled() {
            true => Err(Stopped::Cancelled),
            false => Ok(()),
        }
    }

    /// Adds steps to the budget.
    pub(crate) fn refill(&mut self, steps: u64) {
        self.steps_left += steps;
    }
}

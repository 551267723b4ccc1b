//! How much work compiling one grammar may take, and whether its caller still waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Steps of work for one grammar, each about a microsecond: the front end's part of the time that a compile may take.
pub const COMPILE_STEPS_MAX: u64 = 600_000;
/// Steps between two looks at the cancel flag.
const CANCEL_CHECK_STEPS: u64 = 256;

/// One compile from outside: it ends soon after it is cancelled, and tells what it has cost. Clones are the same one.
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

    /// Work that was done until now, in steps of about a microsecond.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }
}

/// Why a compile ended before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The steps are used up.
    TooMuchWork,
    /// The caller doesn't wait any more.
    Cancelled,
}

/// The steps that are left. Whatever loops over a caller's input pays here first.
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

    /// Before work that can't be interrupted.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        match self.cancel.is_cancelled() {
            true => Err(Stopped::Cancelled),
            false => Ok(()),
        }
    }

    /// Gives it so many steps more.
    pub(crate) fn refill(&mut self, steps: u64) {
        self.steps_left += steps;
    }
}

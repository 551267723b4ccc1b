//! Jobs that wait for the embedding thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Job;
use crate::local::fair_queue::FairQueue;

pub(super) struct Queue {
    requests_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Job>,
    /// The thread ends when it has nothing left.
    ending: bool,
    /// New jobs are refused; waiting ones are computed.
    draining: bool,
    closed: bool,
}

/// Why a job isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Draining,
    Closed,
}

impl Queue {
    pub(super) fn new(requests_max: usize) -> Self {
        Queue {
            requests_max,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.draining {
            return Err(Refused::Draining);
        }
        let account = job.account.clone();
        if !state.waiting.has_room(&account, self.requests_max) {
            // Callers that have left may still hold room.
            state.waiting.retain(|job| !job.answer.is_closed());
        }
        if !state.waiting.has_room(&account, self.requests_max) {
            return Err(Refused::Full);
        }
        state.waiting.push(&account, job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// For the embedding thread: takes a job of an account for which `may` is true, if there is one. Waits for it if
    /// `idle`; then `None` tells the thread to end.
    pub(super) fn take(&self, idle: bool, may: impl Fn(&str) -> bool) -> Option<Option<Job>> {
        let mut state = self.lock();
        while idle && state.waiting.is_empty() && !state.ending {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let next = state.waiting.pop(may).map(|(_, job)| job);
        (next.is_some() || !idle).then_some(next)
    }

    /// Refuses new jobs from now on; the waiting ones are computed.
    pub(super) fn drain(&self) {
        self.lock().draining = true;
    }

    /// Refuses new jobs from now on, and drops the waiting ones, whose callers get an error.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting = FairQueue::default();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Lets the thread end after the jobs that it has.
    pub(super) fn end(&self) {
        self.lock().ending = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is no problem: nothing under it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The state that async code and the engine's thread share: the queue of accepted requests, and whether more are
//! accepted. One lock guards both, so that no request can slip in after the thread's last look.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_engine::event::EventSender;
use weir_engine::{EngineError, Health};

use crate::local::fair_queue::has_room;
use crate::prepared::PreparedRequest;
use crate::scheduler::Drafted;

/// Bounds of `retry_after`.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A request that was accepted.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) prepared: PreparedRequest,
    pub(crate) sender: EventSender,
}

/// The requests inside the core that wait for their first step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueStats {
    pub requests: usize,
    /// Requests by account.
    pub of_accounts: HashMap<Arc<str>, usize>,
    /// How long it will take until all of them have begun, at the measured speed.
    pub wait: Duration,
    /// The numbers of draft tokens so far, and of accepted ones.
    pub drafted: Drafted,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    requests_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    starts: VecDeque<Start>,
    /// Whether a token mask has come since the thread last looked.
    woken: bool,
    /// The load that the thread last reported.
    load: QueueStats,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Open,
    Draining,
    Stopping,
    Down(String),
}

/// The result of the thread's look into the inbox.
#[derive(Debug)]
pub(crate) enum Poll {
    Starts(VecDeque<Start>),
    Stop,
}

impl State {
    fn accepts(&self, account: &str, requests_max: usize) -> Result<(), EngineError> {
        let retry_after = self.load.wait.clamp(RETRY_MIN, RETRY_MAX);
        let length = self.starts.len() + self.load.requests;
        let of_account = |start: &&Start| *start.prepared.account == *account;
        let own = self.load.of_accounts.get(account).copied().unwrap_or(0);
        let own = own + self.starts.iter().filter(of_account).count();
        match &self.phase {
            Phase::Open if has_room(length, own, requests_max) => Ok(()),
            Phase::Open => Err(EngineError::Busy { retry_after }),
            Phase::Draining => Err(EngineError::Draining { retry_after }),
            Phase::Stopping => Err(EngineError::Unavailable(
                "the engine is stopping".to_owned(),
            )),
            Phase::Down(why) => Err(EngineError::Unavailable(why.clone())),
        }
    }
}

/// How long the thread waits for something new.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitMode {
    None,
    Short(Duration),
    Endless,
}

impl Inbox {
    pub(crate) fn new(requests_max: usize) -> Self {
        let state = State {
            phase: Phase::Open,
            starts: VecDeque::new(),
            woken: false,
            load: QueueStats::default(),
        };
        Inbox {
            requests_max,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, start: Start) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.accepts(&start.prepared.account, self.requests_max)?;
        state.starts.push_back(start);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Whether a request of the account would be accepted now.
    pub(crate) fn accepts(&self, account: &str) -> Result<(), EngineError> {
        self.lock().accepts(account, self.requests_max)
    }

    /// Wakes the thread if it has nothing to step: a token mask has come.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open | Phase::Draining) {
            state.phase = Phase::Stopping;
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn drafted(&self) -> Drafted {
        self.lock().load.drafted
    }

    pub(crate) fn health(&self) -> Health {
        match &self.lock().phase {
            Phase::Open | Phase::Draining => Health::Ready,
            Phase::Stopping => Health::Down("the engine is stopping".to_owned()),
            Phase::Down(why) => Health::Down(why.clone()),
        }
    }

    /// For the engine's thread: reports its load, waits as `wait_mode` says, and takes the new requests.
    pub(crate) fn take(&self, load: QueueStats, wait_mode: WaitMode) -> Poll {
        let mut state = self.lock();
        state.load = load;
        let waiting = |state: &mut State| {
            state.starts.is_empty() && !state.woken && state.phase != Phase::Stopping
        };
        state = match wait_mode {
            WaitMode::None => state,
            WaitMode::Short(time) => {
                self.changed
                    .wait_timeout_while(state, time, waiting)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            WaitMode::Endless => self
                .changed
                .wait_while(state, waiting)
                .unwrap_or_else(PoisonError::into_inner),
        };
        state.woken = false;
        if state.phase == Phase::Stopping {
            return Poll::Stop;
        }
        let starts = std::mem::take(&mut state.starts);
        // The requests count as waiting until the thread reports how many of them still wait.
        state.load.requests += starts.len();
        for start in &starts {
            let account = Arc::clone(&start.prepared.account);
            *state.load.of_accounts.entry(account).or_default() += 1;
        }
        Poll::Starts(starts)
    }

    /// Called when the engine's thread ends: refuses all further requests with `why`, and returns those that the thread
    /// hadn't taken.
    pub(crate) fn close(&self, why: String) -> VecDeque<Start> {
        let mut state = self.lock();
        state.phase = Phase::Down(why);
        std::mem::take(&mut state.starts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is no problem: nothing under it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

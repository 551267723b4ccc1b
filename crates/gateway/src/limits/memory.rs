//! The counts of this process. Without a store they decide. With a store they mirror its answers: the response headers
//! show them, and the local policy continues from them while the store is unreachable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::level::{Level, cost_ns, wait};
use super::quota::{CONCURRENT_RETRY_NS, Denied, Quota, Subject, Which};

/// Number of subjects at which idle ones are first removed from the table.
pub(super) const SUBJECTS_SWEEP: usize = 10_000;

#[derive(Debug)]
pub(super) struct Memory {
    origin: Instant,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    states: HashMap<Arc<str>, State>,
    sweep_at: usize,
}

/// A subject's counts. A state with every field zero is equal to no state.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// The time of `used`, in microseconds since the origin.
    at: u64,
    used: Levels,
    concurrent: u32,
}

/// A subject's used requests and tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) requests: Level,
    pub(super) tokens: Level,
}

/// A correction of reserved tokens to the tokens used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Correction {
    pub(super) reserved: u64,
    pub(super) used: u64,
}

impl Correction {
    /// Three costs in nanoseconds: to take in addition, to give back, and that the reservation took.
    pub(super) fn costs_ns(self, limit: u64) -> (u64, u64, u64) {
        let Correction { reserved, used } = self;
        (
            cost_ns(used.saturating_sub(reserved), limit),
            cost_ns(reserved.saturating_sub(used), limit),
            cost_ns(reserved, limit),
        )
    }
}

impl Memory {
    pub(super) fn new(origin: Instant) -> Self {
        let table = Table {
            states: HashMap::new(),
            sweep_at: SUBJECTS_SWEEP,
        };
        Memory {
            origin,
            table: Mutex::new(table),
        }
    }

    /// Whether a request would be admitted now. Counts nothing.
    pub(super) fn check_request(&self, subjects: &[Subject], now: Instant) -> Result<(), Denied> {
        self.lock().check_request(subjects, self.micros(now))
    }

    pub(super) fn admit_request(&self, subjects: &[Subject], now: Instant) -> Result<(), Denied> {
        let now = self.micros(now);
        let mut table = self.lock();
        table.check_request(subjects, now)?;
        for Subject { name, quotas } in subjects {
            table.enter(name);
            if let Some(limit) = quotas.requests_per_minute.map(u64::from) {
                table.levels_mut(name, now).requests.take(cost_ns(1, limit));
            }
        }
        table.sweep(now);
        Ok(())
    }

    pub(super) fn admit_tokens(
        &self,
        subjects: &[Subject],
        tokens: u64,
        now: Instant,
    ) -> Result<(), Denied> {
        let now = self.micros(now);
        let mut table = self.lock();
        let mut denial = Denial::default();
        for Subject { name, quotas } in subjects {
            let used = table.state(name, now).used;
            if let Some(limit) = quotas.tokens_per_minute {
                let wait = used.tokens.wait_ns(cost_ns(tokens, limit));
                denial.note(Which::Tokens, limit, wait);
            }
            if let Some(limit) = quotas.requests_per_minute.map(u64::from) {
                denial.next_request_ns(used.requests.wait_ns(cost_ns(1, limit)));
            }
        }
        denial.refuse()?;
        for (name, limit) in with_token_limit(subjects) {
            table
                .levels_mut(name, now)
                .tokens
                .take(cost_ns(tokens, limit));
        }
        Ok(())
    }

    /// Corrects a reservation. `since` is the time of the reservation.
    pub(super) fn correct(
        &self,
        subjects: &[Subject],
        correction: Correction,
        since: Instant,
        now: Instant,
    ) {
        let (now, since) = (self.micros(now), self.micros(since));
        let mut table = self.lock();
        for (name, limit) in with_token_limit(subjects) {
            let (take, back, taken) = correction.costs_ns(limit);
            let tokens = &mut table.levels_mut(name, now).tokens;
            tokens.give_back(back, taken, now.saturating_sub(since));
            tokens.take(take);
        }
    }

    /// Counts a request as concurrent, whatever the limits.
    pub(super) fn enter(&self, subjects: &[Subject], now: Instant) {
        let now = self.micros(now);
        let mut table = self.lock();
        for Subject { name, .. } in subjects {
            table.enter(name);
        }
        table.sweep(now);
    }

    pub(super) fn leave(&self, subjects: &[Subject]) {
        let mut table = self.lock();
        for Subject { name, .. } in subjects {
            if let Some(state) = table.states.get_mut(name) {
                state.concurrent = state.concurrent.saturating_sub(1);
            }
        }
    }

    /// Sets the subjects' levels to those that the store has counted over all nodes.
    pub(super) fn follow(&self, subjects: &[Subject], levels: &[Levels], now: Instant) {
        let now = self.micros(now);
        let mut table = self.lock();
        for (Subject { name, .. }, levels) in subjects.iter().zip(levels) {
            *table.levels_mut(name, now) = *levels;
        }
    }

    pub(super) fn quota(&self, subject: &Subject, now: Instant) -> Quota {
        let now = self.micros(now);
        let state = self.lock().states.get(&subject.name).copied();
        let used = state.unwrap_or_default().at(now).used;
        let quotas = subject.quotas;
        Quota {
            requests: quotas
                .requests_per_minute
                .map(|limit| used.requests.gauge(u64::from(limit))),
            tokens: quotas
                .tokens_per_minute
                .map(|limit| used.tokens.gauge(limit)),
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.lock().states.len()
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held; if something did, the counts would still be consistent.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A subject's state as of `now`. If the clock has gone back, the state's time is set back with it, so that callers
    /// don't have to wait until the clock has caught up.
    fn state(&mut self, name: &Arc<str>, now: u64) -> State {
        let Some(state) = self.states.get_mut(name) else {
            return State::default();
        };
        state.at = state.at.min(now);
        state.at(now)
    }

    fn check_request(&mut self, subjects: &[Subject], now: u64) -> Result<(), Denied> {
        let mut denial = Denial::default();
        for Subject { name, quotas } in subjects {
            let state = self.state(name, now);
            if let Some(limit) = quotas.requests_per_minute.map(u64::from) {
                let wait = state.used.requests.wait_ns(cost_ns(1, limit));
                denial.note(Which::Requests, limit, wait);
            }
            if let Some(limit) = quotas.concurrent_requests {
                let full = state.concurrent >= limit;
                let wait = if full { CONCURRENT_RETRY_NS } else { 0 };
                denial.note(Which::Concurrent, u64::from(limit), wait);
            }
        }
        denial.refuse()
    }

    fn levels_mut(&mut self, name: &Arc<str>, now: u64) -> &mut Levels {
        let state = self.states.entry(Arc::clone(name)).or_default();
        *state = state.at(now);
        &mut state.used
    }

    fn enter(&mut self, name: &Arc<str>) {
        self.states.entry(Arc::clone(name)).or_default().concurrent += 1;
    }

    /// Removes the states of idle subjects. The next sweep comes when the table has doubled, so the amortized cost per
    /// request is constant.
    fn sweep(&mut self, now: u64) {
        if self.states.len() < self.sweep_at {
            return;
        }
        self.states
            .retain(|_, state| state.concurrent > 0 || state.at(now).used != Levels::default());
        self.sweep_at = (self.states.len() * 2).max(SUBJECTS_SWEEP);
    }
}

impl State {
    fn at(self, now: u64) -> Self {
        let passed = now.saturating_sub(self.at);
        State {
            at: now,
            used: Levels {
                requests: self.used.requests.drained(passed),
                tokens: self.used.tokens.drained(passed),
            },
            ..self
        }
    }
}

/// The limit with the longest wait among all that refuse: after that wait the request passes every limit.
#[derive(Debug, Default)]
struct Denial {
    longest: Option<(Which, u64, u64)>,
    next_request_ns: u64,
}

impl Denial {
    fn note(&mut self, which: Which, limit: u64, wait_ns: u64) {
        if wait_ns > self.longest.map_or(0, |(_, _, longest)| longest) {
            self.longest = Some((which, limit, wait_ns));
        }
    }

    /// Also waits for a request to be free: a request that is refused for its tokens was counted, and its retry needs
    /// one more.
    fn next_request_ns(&mut self, wait_ns: u64) {
        self.next_request_ns = self.next_request_ns.max(wait_ns);
    }

    fn refuse(self) -> Result<(), Denied> {
        let Some((which, limit, wait_ns)) = self.longest else {
            return Ok(());
        };
        Err(Denied {
            which,
            limit,
            retry_after: wait(wait_ns.max(self.next_request_ns)),
        })
    }
}

fn with_token_limit(subjects: &[Subject]) -> impl Iterator<Item = (&Arc<str>, u64)> {
    subjects
        .iter()
        .filter_map(|subject| Some((&subject.name, subject.quotas.tokens_per_minute?)))
}

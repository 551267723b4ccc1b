//! Rate limits: requests and tokens per minute, and concurrent requests.
//!
//! Rates are counted by GCRA (the generic cell rate algorithm, ITU-T I.371): per subject one time
//! stamp, the *theoretical arrival time*. A bucket holds a minute's worth, a unit takes 60 s ÷ limit to
//! come back. Tokens are reserved by an upper estimate and corrected when the count is known.
//! A request counts against all its subjects or against none.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
pub use weir_accounts::Quotas;

/// Something that limits are counted for, a key for example, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: Arc<str>,
    pub quotas: Quotas,
}

/// Which limit stood in the way, and when the same request would be admitted (for concurrency: an
/// estimate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    pub which: Which,
    pub limit: u64,
    pub retry_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Requests,
    Tokens,
    Concurrent,
}

/// A rate limit as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    pub limit: u64,
    pub remaining: u64,
    /// Until the whole limit is there again.
    pub reset: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub requests: Option<Gauge>,
    pub tokens: Option<Gauge>,
}

/// Limits kept in this process.
#[derive(Debug, Clone)]
pub struct Limits {
    memory: Arc<Memory>,
}

/// Subjects that are remembered before those with nothing to remember are dropped.
const SUBJECTS_SWEEP: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);
/// Guess of when a place among concurrent requests is free.
const CONCURRENT_RETRY: Duration = Duration::from_secs(1);

impl Limits {
    pub fn new(now: Instant) -> Self {
        let table = Table {
            states: HashMap::new(),
            sweep_at: SUBJECTS_SWEEP,
        };
        Limits {
            memory: Arc::new(Memory {
                origin: now,
                table: Mutex::new(table),
            }),
        }
    }

    /// Counts a request against all subjects, or against none. The permit is its place among the
    /// concurrent requests.
    pub fn admit_request(
        &self,
        subjects: Vec<Subject>,
        now: Instant,
    ) -> impl Future<Output = Result<Permit, Denied>> + Send {
        ready(self.memory.admit(&subjects, now).map(|()| Permit {
            memory: Arc::clone(&self.memory),
            subjects,
            reservation: None,
        }))
    }

    pub fn quota(&self, subject: &Subject, now: Instant) -> Quota {
        self.memory.quota(subject, now)
    }
}

/// An admitted request. Dropping it ends it, and gives back reserved tokens that weren't corrected.
#[derive(Debug)]
pub struct Permit {
    memory: Arc<Memory>,
    subjects: Vec<Subject>,
    reservation: Option<Reservation>,
}

/// Tokens that were counted, and when.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    tokens: u64,
    at: Instant,
}

impl Permit {
    /// Reserves tokens by the upper estimate, for all subjects or for none.
    pub fn admit_tokens(
        &mut self,
        tokens: u64,
        now: Instant,
    ) -> impl Future<Output = Result<(), Denied>> + Send {
        let admitted = self.memory.admit_tokens(&self.subjects, tokens, now);
        if admitted.is_ok() {
            self.reservation = Some(Reservation { tokens, at: now });
        }
        ready(admitted)
    }

    /// Corrects the reservation to what was used.
    pub fn true_up(&mut self, tokens_used: u64, now: Instant) {
        if let Some(reservation) = self.reservation.take() {
            self.memory
                .true_up(&self.subjects, reservation, tokens_used, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.true_up(0, Instant::now());
        self.memory.leave(&self.subjects);
    }
}

#[derive(Debug)]
struct Memory {
    origin: Instant,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    states: HashMap<Arc<str>, State>,
    sweep_at: usize,
}

/// Nothing of it set is the same as no state at all.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    requests: Arrival,
    tokens: Arrival,
    concurrent: u32,
}

/// The theoretical arrival time, since the origin: the bucket is full when it lies in the past.
#[derive(Debug, Clone, Copy, Default)]
struct Arrival(Duration);

impl Arrival {
    /// The time to wait until `units` of `limit` a minute are there; more than the limit need a full bucket.
    fn wait(self, units: u64, limit: u64, now: Duration) -> Duration {
        let cost = time_of(units, limit).min(MINUTE);
        (self.0.max(now) + cost).saturating_sub(now + MINUTE)
    }

    fn take(&mut self, units: u64, limit: u64, now: Duration) {
        self.0 = self.0.max(now).saturating_add(time_of(units, limit));
    }

    /// Of what was taken `since`, time itself has given back a part; never more than the rest is given
    /// back now, or it would free what others have taken meanwhile.
    fn give_back(&mut self, units: u64, limit: u64, taken: u64, since: Duration, now: Duration) {
        let passed = now.saturating_sub(since);
        let left = time_of(taken, limit).saturating_sub(passed);
        self.0 = self.0.saturating_sub(time_of(units, limit).min(left));
    }

    fn gauge(self, limit: u64, now: Duration) -> Gauge {
        let used = self.0.saturating_sub(now);
        let free = MINUTE.saturating_sub(used);
        let remaining = free.as_nanos() * u128::from(limit) / MINUTE.as_nanos();
        Gauge {
            limit,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            reset: used,
        }
    }
}

/// How long `units` take to come back, rounded down: a whole limit taken one by one must fit a minute.
/// A limit of 0 admits one unit a century.
fn time_of(units: u64, limit: u64) -> Duration {
    const CENTURY_NANOS: u128 = 100 * 365 * 86_400 * 1_000_000_000;
    let nanos = match limit {
        0 => CENTURY_NANOS,
        limit => (u128::from(units) * MINUTE.as_nanos() / u128::from(limit)).min(CENTURY_NANOS),
    };
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Memory {
    fn since_origin(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while the lock is held; if it did, counts would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, subjects: &[Subject], now: Instant) -> Result<(), Denied> {
        let now = self.since_origin(now);
        let mut table = self.lock();
        for Subject { name, quotas } in subjects {
            let state = table.states.get(name).copied().unwrap_or_default();
            if let Some(limit) = quotas.requests_per_minute.map(u64::from) {
                refuse_while(state.requests.wait(1, limit, now), Which::Requests, limit)?;
            }
            if let Some(limit) = quotas
                .concurrent_requests
                .filter(|&limit| state.concurrent >= limit)
            {
                refuse_while(CONCURRENT_RETRY, Which::Concurrent, u64::from(limit))?;
            }
        }
        for Subject { name, quotas } in subjects {
            let state = table.states.entry(Arc::clone(name)).or_default();
            state.concurrent += 1;
            if let Some(limit) = quotas.requests_per_minute {
                state.requests.take(1, u64::from(limit), now);
            }
        }
        table.sweep(now);
        Ok(())
    }

    fn admit_tokens(&self, subjects: &[Subject], tokens: u64, now: Instant) -> Result<(), Denied> {
        let now = self.since_origin(now);
        let mut table = self.lock();
        for Subject { name, quotas } in subjects {
            let state = table.states.get(name).copied().unwrap_or_default();
            if let Some(limit) = quotas.tokens_per_minute {
                refuse_while(state.tokens.wait(tokens, limit, now), Which::Tokens, limit)?;
            }
        }
        for (name, limit) in with_token_limit(subjects) {
            table
                .states
                .entry(Arc::clone(name))
                .or_default()
                .tokens
                .take(tokens, limit, now);
        }
        Ok(())
    }

    fn true_up(&self, subjects: &[Subject], reservation: Reservation, used: u64, now: Instant) {
        let Reservation {
            tokens: reserved,
            at,
        } = reservation;
        let (now, since) = (self.since_origin(now), self.since_origin(at));
        let mut table = self.lock();
        for (name, limit) in with_token_limit(subjects) {
            let tokens = &mut table.states.entry(Arc::clone(name)).or_default().tokens;
            match used.checked_sub(reserved) {
                Some(more) => tokens.take(more, limit, now),
                None => tokens.give_back(reserved - used, limit, reserved, since, now),
            }
        }
    }

    fn leave(&self, subjects: &[Subject]) {
        let mut table = self.lock();
        for Subject { name, .. } in subjects {
            if let Some(state) = table.states.get_mut(name) {
                state.concurrent = state.concurrent.saturating_sub(1);
            }
        }
    }

    fn quota(&self, subject: &Subject, now: Instant) -> Quota {
        let now = self.since_origin(now);
        let state = self
            .lock()
            .states
            .get(&subject.name)
            .copied()
            .unwrap_or_default();
        let quotas = subject.quotas;
        Quota {
            requests: quotas
                .requests_per_minute
                .map(|limit| state.requests.gauge(u64::from(limit), now)),
            tokens: quotas
                .tokens_per_minute
                .map(|limit| state.tokens.gauge(limit, now)),
        }
    }
}

impl Table {
    /// Drops the states that say nothing. Its cost is spread: the next sweep comes when the table has doubled.
    fn sweep(&mut self, now: Duration) {
        if self.states.len() < self.sweep_at {
            return;
        }
        self.states.retain(|_, state| {
            state.concurrent > 0 || state.requests.0 > now || state.tokens.0 > now
        });
        self.sweep_at = (self.states.len() * 2).max(SUBJECTS_SWEEP);
    }
}

fn with_token_limit(subjects: &[Subject]) -> impl Iterator<Item = (&Arc<str>, u64)> {
    subjects.iter().filter_map(|subject| {
        subject
            .quotas
            .tokens_per_minute
            .map(|limit| (&subject.name, limit))
    })
}

fn refuse_while(wait: Duration, which: Which, limit: u64) -> Result<(), Denied> {
    if wait.is_zero() {
        Ok(())
    } else {
        Err(Denied {
            which,
            limit,
            retry_after: wait,
        })
    }
}

#[cfg(test)]
mod tests;

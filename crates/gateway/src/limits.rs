//! Rate limits: requests and tokens per minute, and concurrent requests.
//!
//! Rates are counted by GCRA (the generic cell rate algorithm, ITU-T I.371). Tokens are reserved by an
//! upper estimate and corrected when the count is known. A request counts against all its subjects or
//! against none. The counts are this process's ([`memory`]), or those of a [`store`] that nodes share.

mod level;
mod memory;
mod store;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
pub use weir_accounts::Quotas;

use self::memory::{Correction, Memory};
use self::store::{Seat, Store};
pub use self::store::{StoreError, StoreFailure, StoreOptions, is_store_address};

/// Something that limits are counted for, a key for example, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: Arc<str>,
    pub quotas: Quotas,
}

/// Why a request isn't let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    Denied(Denied),
    /// The store is out of reach, and the configuration refuses requests then.
    Unavailable,
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

/// Guess of when a place among concurrent requests is free.
const CONCURRENT_RETRY_NS: u64 = 1_000_000_000;

/// Counts, and who may still be counted. Clones share them.
#[derive(Debug, Clone)]
pub struct Limits {
    memory: Arc<Memory>,
    store: Option<Store>,
}

impl Limits {
    /// Limits of this process alone.
    pub fn new(now: Instant) -> Self {
        Limits {
            memory: Arc::new(Memory::new(now)),
            store: None,
        }
    }

    /// Limits that all nodes with the same store share. A store that can't be reached now is tried again.
    pub async fn shared(options: StoreOptions, now: Instant) -> Result<Self, StoreError> {
        Ok(Limits {
            store: Some(Store::open(options).await?),
            ..Limits::new(now)
        })
    }

    /// Counts a request against all subjects, or against none. The permit is its place among the
    /// concurrent requests.
    pub async fn admit_request(
        &self,
        mut subjects: Vec<Subject>,
        now: Instant,
    ) -> Result<Permit, NotAdmitted> {
        subjects.retain(|subject| subject.quotas != Quotas::default());
        let mut permit = Permit {
            limits: self.clone(),
            subjects,
            seat: None,
            entered: false,
            reservation: None,
        };
        permit.enter(now).await?;
        Ok(permit)
    }

    /// Whether a request would be admitted now, as far as this process knows. Counts nothing.
    pub fn check_request(&self, subjects: &[Subject], now: Instant) -> Result<(), NotAdmitted> {
        Ok(self.memory.check_request(subjects, now)?)
    }

    /// What is left of the subjects' limits: of each limit what is tightest.
    pub fn quota(&self, subjects: &[Subject], now: Instant) -> Quota {
        let mut quota = Quota::default();
        for subject in subjects {
            let Quota { requests, tokens } = self.memory.quota(subject, now);
            quota.requests = tighter(quota.requests, requests);
            quota.tokens = tighter(quota.tokens, tokens);
        }
        quota
    }

    /// Tells the store what has ended, and lets go of it. Call it when no permit is left.
    pub async fn close(&self) {
        if let Some(store) = &self.store {
            store.close().await;
        }
    }
}

fn tighter(one: Option<Gauge>, other: Option<Gauge>) -> Option<Gauge> {
    let (Some(a), Some(b)) = (one, other) else {
        return one.or(other);
    };
    let key = |gauge: &Gauge| (gauge.remaining, std::cmp::Reverse(gauge.reset));
    Some(if key(&b) < key(&a) { b } else { a })
}

/// An admitted request. Dropping it ends it, and gives back its reserved tokens.
#[derive(Debug)]
pub struct Permit {
    limits: Limits,
    subjects: Vec<Subject>,
    /// Its place at the store; given up there also if the answer never came.
    seat: Option<Seat>,
    entered: bool,
    reservation: Option<Reservation>,
}

/// Tokens that were counted, and when.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    tokens: u64,
    at: Instant,
    /// By the store's clock, if it counted them.
    stored_at: Option<u64>,
}

impl Permit {
    async fn enter(&mut self, now: Instant) -> Result<(), NotAdmitted> {
        let memory = &self.limits.memory;
        let Some(store) = self
            .limits
            .store
            .as_ref()
            .filter(|_| !self.subjects.is_empty())
        else {
            memory.admit_request(&self.subjects, now)?;
            self.entered = true;
            return Ok(());
        };
        let seat = self.seat.insert(store.seat(&self.subjects));
        match store.admit_request(&self.subjects, seat, now).await {
            Ok(verdict) => {
                memory.follow(&self.subjects, &verdict.levels, now);
                if let Some(denied) = verdict.denied {
                    self.seat = None;
                    return Err(denied.into());
                }
                memory.enter(&self.subjects, now);
            }
            Err(_out_of_reach) => match store.on_failure() {
                StoreFailure::Local => memory.admit_request(&self.subjects, now)?,
                StoreFailure::Open => memory.enter(&self.subjects, now),
                StoreFailure::Closed => return Err(NotAdmitted::Unavailable),
            },
        }
        self.entered = true;
        store.keep(seat);
        Ok(())
    }

    /// Reserves tokens by the upper estimate, for all subjects or for none.
    pub async fn admit_tokens(&mut self, tokens: u64, now: Instant) -> Result<(), NotAdmitted> {
        let limited = |subject: &Subject| subject.quotas.tokens_per_minute.is_some();
        if !self.subjects.iter().any(limited) {
            return Ok(());
        }
        let memory = &self.limits.memory;
        let mut reservation = Reservation {
            tokens,
            at: now,
            stored_at: None,
        };
        match &self.limits.store {
            None => memory.admit_tokens(&self.subjects, tokens, now)?,
            Some(store) => match store.admit_tokens(&self.subjects, tokens, now).await {
                Ok(verdict) => {
                    memory.follow(&self.subjects, &verdict.levels, now);
                    verdict.denied.map_or(Ok(()), Err)?;
                    reservation.stored_at = Some(verdict.at);
                }
                Err(_out_of_reach) => match store.on_failure() {
                    StoreFailure::Local => memory.admit_tokens(&self.subjects, tokens, now)?,
                    StoreFailure::Open => return Ok(()),
                    StoreFailure::Closed => return Err(NotAdmitted::Unavailable),
                },
            },
        }
        self.reservation = Some(reservation);
        Ok(())
    }

    /// Corrects the reservation to what was used, and gives the place back. Returns when the store
    /// knows, so that a caller who comes again at once finds it so.
    pub fn end(
        mut self,
        tokens_used: u64,
        now: Instant,
    ) -> impl Future<Output = ()> + Send + use<> {
        let told = self.finish(tokens_used, now);
        drop(self);
        async move {
            if let Some(told) = told {
                told.done().await;
            }
        }
    }

    fn finish(&mut self, tokens_used: u64, now: Instant) -> Option<store::Told> {
        let reservation = self.reservation.take();
        let correction = reservation.map(|reservation| Correction {
            reserved: reservation.tokens,
            used: tokens_used,
        });
        if let (Some(correction), Some(reservation)) = (correction, reservation) {
            let memory = &self.limits.memory;
            memory.correct(&self.subjects, correction, reservation.at, now);
        }
        if std::mem::take(&mut self.entered) {
            self.limits.memory.leave(&self.subjects);
        }
        let seat = self.seat.take()?;
        let stored_at = reservation.and_then(|reservation| reservation.stored_at);
        let correction = correction.zip(stored_at);
        let store = self.limits.store.as_ref()?;
        Some(store.end(seat, &self.subjects, correction, now))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Nobody waits for the store here; it is told in its turn.
        let _ = self.finish(0, Instant::now());
    }
}

impl From<Denied> for NotAdmitted {
    fn from(denied: Denied) -> Self {
        NotAdmitted::Denied(denied)
    }
}

#[cfg(test)]
mod tests;

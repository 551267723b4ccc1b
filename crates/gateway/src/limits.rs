//! Rate limits: requests and tokens per minute, and concurrent requests.
//!
//! Rates are counted by GCRA (the generic cell rate algorithm, ITU-T I.371). Tokens are reserved by an upper estimate
//! and corrected when the count is known. A request counts against all its subjects or against none. The counts are in
//! this process ([`memory`]), or in a [`store`] that several nodes share.

mod level;
mod memory;
mod quota;
mod store;

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use self::memory::{Correction, Memory};
pub use self::quota::{Denied, Gauge, Quota, Quotas, Subject, Which};
use self::store::{Lease, Store};
pub use self::store::{StoreError, StoreFailure, StoreOptions, is_store_address};

/// Why a request isn't admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    Denied(Denied),
    /// The store is unreachable, and the configuration says to refuse requests then.
    Unavailable,
}

/// The counters of rate limits, in memory or shared. Clones share the same counts.
#[derive(Debug, Clone)]
pub struct Limits {
    memory: Arc<Memory>,
    store: Option<Store>,
}

impl Limits {
    /// Counts in this process's memory alone.
    pub fn new(now: Instant) -> Self {
        Limits {
            memory: Arc::new(Memory::new(now)),
            store: None,
        }
    }

    /// Counts that all nodes with the same store share. If the store can't be reached now, connecting is tried again in
    /// the background.
    pub async fn shared(options: StoreOptions, now: Instant) -> Result<Self, StoreError> {
        Ok(Limits {
            store: Some(Store::open(options).await?),
            ..Limits::new(now)
        })
    }

    /// Counts a request against all subjects, or against none. While the permit lives, the request counts as
    /// concurrent.
    pub async fn admit_request(
        &self,
        mut subjects: Vec<Subject>,
        now: Instant,
    ) -> Result<Permit, NotAdmitted> {
        subjects.retain(|subject| subject.quotas != Quotas::default());
        let mut permit = Permit {
            limits: self.clone(),
            subjects,
            lease: None,
            entered: false,
            reservation: None,
        };
        permit.enter(now).await?;
        Ok(permit)
    }

    /// Whether a request would be admitted now, by the counts that this process knows. Counts nothing.
    pub fn check_request(&self, subjects: &[Subject], now: Instant) -> Result<(), NotAdmitted> {
        Ok(self.memory.check_request(subjects, now)?)
    }

    /// The remaining limits: for each limit, the tightest of all subjects.
    pub fn quota(&self, subjects: &[Subject], now: Instant) -> Quota {
        let mut quota = Quota::default();
        for subject in subjects {
            let Quota { requests, tokens } = self.memory.quota(subject, now);
            quota.requests = tighter(quota.requests, requests);
            quota.tokens = tighter(quota.tokens, tokens);
        }
        quota
    }

    /// Sends the store the ends of requests that are still queued, and disconnects. Call it when no permit is left.
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

/// An admitted request. Dropping the permit ends the request and gives back its reserved tokens.
#[derive(Debug)]
pub struct Permit {
    limits: Limits,
    subjects: Vec<Subject>,
    /// The request's slot in the store's sets of concurrent requests. Also released if the store never answered, since
    /// the store may have counted the request.
    lease: Option<Lease>,
    entered: bool,
    reservation: Option<Reservation>,
}

/// A reservation of tokens, and its time.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    tokens: u64,
    at: Instant,
    /// The time of the reservation by the store's clock, in microseconds, if the store counted it.
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
        let lease = self.lease.insert(store.lease(&self.subjects));
        match store.admit_request(&self.subjects, lease, now).await {
            Ok(verdict) => {
                memory.follow(&self.subjects, &verdict.levels, now);
                if let Some(denied) = verdict.denied {
                    self.lease = None;
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
        store.keep(lease);
        Ok(())
    }

    /// Reserves the upper estimate of the request's tokens, for all subjects or for none.
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

    /// Corrects the reservation to the tokens used, and ends the request. The future is done when the store has counted
    /// it, so that a caller's next request finds its quota back.
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

    fn finish(&mut self, tokens_used: u64, now: Instant) -> Option<store::Release> {
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
        let lease = self.lease.take()?;
        let stored_at = reservation.and_then(|reservation| reservation.stored_at);
        let correction = correction.zip(stored_at);
        let store = self.limits.store.as_ref()?;
        Some(store.end(lease, &self.subjects, correction, now))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A drop can't wait for the store: the end of the request is queued and sent in its turn.
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

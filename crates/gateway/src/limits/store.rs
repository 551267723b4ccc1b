//! Counts that several nodes share, in Valkey or Redis. A Lua script there decides and counts atomically, by the
//! store's own clock.
//!
//! While the store is unreachable, requests don't wait for it: [`mod@connection`] notices the failure once, requests follow
//! the configured policy, and a background task reconnects.

mod connection;
mod release_queue;
mod script;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connection;
pub(super) use self::connection::OutOfReach;
use self::release_queue::{Errand, ReleaseQueue};
use self::script::Call;
pub(super) use self::script::{Time, Verdict};
use super::memory::Correction;
use super::quota::Subject;

/// The store's address, and the policy while it is unreachable.
#[derive(Clone)]
pub struct StoreOptions {
    /// `redis://user:password@host:6379/0`, or `valkey://…`.
    pub url: String,
    /// The longest time that a request waits for the store.
    pub timeout: Duration,
    pub on_failure: StoreFailure,
    /// Random number that identifies this process in the store.
    pub node: u64,
}

impl fmt::Debug for StoreOptions {
    /// Leaves the address out, since it may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoreOptions {
            url: _,
            timeout,
            on_failure,
            node,
        } = self;
        f.debug_struct("StoreOptions")
            .field("timeout", timeout)
            .field("on_failure", on_failure)
            .field("node", node)
            .finish_non_exhaustive()
    }
}

/// The policy for requests while the store is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFailure {
    /// Each node counts on its own.
    Local,
    /// No request is refused.
    Open,
    /// Every request is refused.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("not the address of a store; it looks like redis://host:6379/0")]
    Address,
}

/// Whether `url` is a valid address of a store.
pub fn is_store_address(url: &str) -> bool {
    redis::Client::open(url).is_ok()
}

/// A slot expires after this unless it is renewed, so that a crashed process frees its slots.
const LEASE: Duration = Duration::from_secs(30);
/// Capacity of the queue of ended requests that the store has to be told of. If it is full, the slot is left to expire.
const ERRANDS_MAX: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    leases: Arc<Leases>,
    next_lease: AtomicU64,
    errands: mpsc::Sender<Errand>,
    options: StoreOptions,
    time: Time,
    lease_time: Duration,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A running request's slot in the store's sets of concurrent requests.
#[derive(Debug)]
pub(super) struct Lease {
    id: Arc<str>,
    /// The keys of the sets that the slot is a member of.
    places: Vec<String>,
}

/// The slots of this process that are renewed, by their id.
#[derive(Debug, Default)]
struct Leases(Mutex<HashMap<Arc<str>, Vec<String>>>);

/// A message to the store about an ended request. [`Release::done`] waits until it is delivered or given up.
#[derive(Debug)]
pub(super) struct Release(Option<oneshot::Receiver<()>>);

impl Release {
    pub(super) async fn done(self) {
        if let Some(release) = self.0 {
            // The sender is dropped when the store is unreachable: then there is nothing to wait for.
            let _ = release.await;
        }
    }
}

impl Store {
    pub(super) async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Store::open_with(options, Time::OfTheStore, LEASE).await
    }

    pub(super) async fn open_with(
        options: StoreOptions,
        time: Time,
        lease_time: Duration,
    ) -> Result<Self, StoreError> {
        let connection = Arc::new(Connection::new(&options)?);
        let leases = Arc::new(Leases::default());
        let (errands, received) = mpsc::channel(ERRANDS_MAX);
        let release_queue = ReleaseQueue {
            connection: Arc::clone(&connection),
            leases: Arc::clone(&leases),
            time,
            lease_time,
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        connection.start().await;
        tasks.spawn(Arc::clone(&connection).keep(stop.clone()));
        tasks.spawn(release_queue.run(received, stop.clone()));
        tasks.close();
        Ok(Store(Arc::new(Shared {
            connection,
            leases,
            next_lease: AtomicU64::new(0),
            errands,
            options,
            time,
            lease_time,
            stop,
            tasks,
        })))
    }

    pub(super) fn on_failure(&self) -> StoreFailure {
        self.0.options.on_failure
    }

    /// A new slot for a request of these subjects. Its id is unique over all nodes.
    pub(super) fn lease(&self, subjects: &[Subject]) -> Lease {
        let number = self.0.next_lease.fetch_add(1, Ordering::Relaxed);
        let limited = subjects
            .iter()
            .filter(|subject| subject.quotas.concurrent_requests.is_some());
        Lease {
            id: format!("{:x}-{number:x}", self.0.options.node).into(),
            places: limited
                .map(|subject| script::place(&subject.name))
                .collect(),
        }
    }

    /// Renews the slot from now on, until [`Store::end`].
    pub(super) fn keep(&self, lease: &Lease) {
        if !lease.places.is_empty() {
            let mut leases = self.0.leases.lock();
            leases.insert(Arc::clone(&lease.id), lease.places.clone());
        }
    }

    pub(super) async fn admit_request(
        &self,
        subjects: &[Subject],
        lease: &Lease,
        now: Instant,
    ) -> Result<Verdict, OutOfReach> {
        let time = self.0.time.argument(now);
        let call = Call::request(subjects, &lease.id, self.0.lease_time, time);
        self.decide(call, subjects).await
    }

    pub(super) async fn admit_tokens(
        &self,
        subjects: &[Subject],
        tokens: u64,
        now: Instant,
    ) -> Result<Verdict, OutOfReach> {
        let call = Call::tokens(subjects, tokens, self.0.time.argument(now));
        self.decide(call, subjects).await
    }

    async fn decide(&self, call: Call, subjects: &[Subject]) -> Result<Verdict, OutOfReach> {
        let reply = self.0.connection.ask(&call).await?;
        Verdict::read(&reply, subjects).ok_or_else(|| {
            tracing::error!("the store of the limits answers something else");
            OutOfReach
        })
    }

    /// Releases a slot and corrects the reserved tokens. The correction comes with the time of the reservation by the
    /// store's clock.
    pub(super) fn end(
        &self,
        lease: Lease,
        subjects: &[Subject],
        correction: Option<(Correction, u64)>,
        now: Instant,
    ) -> Release {
        self.0.leases.lock().remove(&lease.id);
        if lease.places.is_empty() && correction.is_none() || !self.0.connection.is_up() {
            return Release(None);
        }
        let time = self.0.time.argument(now);
        let call = Call::end(subjects, &lease.id, correction, time);
        let (done, release) = oneshot::channel();
        let queued = self.0.errands.try_send(Errand { call, done });
        Release(queued.is_ok().then_some(release))
    }

    /// Waits until the store is reachable (`up`) or unreachable (`!up`).
    #[cfg(test)]
    pub(super) async fn up(&self, up: bool) {
        self.0.connection.until(up).await;
    }

    pub(super) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.wait().await;
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<String>>> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

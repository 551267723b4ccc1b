//! Leases: which node may hand out tokens, and which one is dead. A lease errs only on the side that loses no money.
//!
//! A node renews its lease by raising a number in its row. From the moment at which it *asked* for a renewal that was
//! confirmed it may hand out tokens for nine tenths of `silence`, by its own clock. Any other node that sees the same
//! number for all of `silence`, by *its* own clock and without a gap in what it sees, may delete the row and end the
//! holds: it saw the number after it was written, so the lease is over by then, as long as no clock runs ten percent
//! faster or slower than another. No wall clock is compared to any other. Deleting the row and renewing exclude each
//! other, as both change it: a node whose row is gone knows that its holds are no longer its own.
//!
//! An outage of the database is a gap for every node: a node that could not look takes no other one for dead.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// Time since some fixed moment, by a clock that also counts while the machine sleeps (`CLOCK_BOOTTIME`).
#[derive(Clone)]
pub struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    pub fn system() -> Self {
        Uptime(Arc::new(|| {
            let time = clock_gettime(ClockId::Boottime);
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
        }))
    }

    /// A clock of a test's own.
    pub fn from_fn(uptime: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Uptime(Arc::new(uptime))
    }

    pub(crate) fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uptime")
    }
}

/// How long a node may hand out tokens after it asked for a renewal: nine tenths of `silence`.
pub(crate) fn length(silence: Duration) -> Duration {
    silence.saturating_mul(9).checked_div(10).unwrap_or(silence)
}

/// How often a node renews its lease and looks at the others: every sixth of `silence`.
pub(crate) fn renew_every(silence: Duration) -> Duration {
    let sixth = silence.checked_div(6).unwrap_or(silence);
    sixth.max(Duration::from_millis(1))
}

/// The lease of a process under one name. It ends for good when another node has taken the row away; then the process
/// goes on under another name.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The process's name in the rows of its holds.
    pub(crate) name: Arc<str>,
    uptime: Uptime,
    /// The longest that [`wait`](Lease::wait) waits for a renewal.
    patience: Duration,
    /// Nanoseconds of uptime until which tokens may be handed out.
    until: AtomicU64,
    lost: AtomicBool,
    changed: Notify,
}

impl Lease {
    pub(crate) fn new(name: Arc<str>, uptime: Uptime, patience: Duration) -> Self {
        Lease {
            name,
            uptime,
            patience,
            until: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// A lease without an end, for a process that no other one could take for dead.
    pub(crate) fn endless(name: Arc<str>, uptime: Uptime) -> Self {
        let lease = Lease::new(name, uptime, Duration::ZERO);
        lease.until.store(u64::MAX, Ordering::Relaxed);
        lease
    }

    /// Extends the lease after a confirmed renewal that was asked for at `asked_at`.
    pub(crate) fn renew(&self, asked_at: Duration, silence: Duration) {
        let until = asked_at.saturating_add(length(silence));
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.until.fetch_max(until, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn is_valid(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        !self.is_lost() && self.uptime.now().as_nanos() < u128::from(until)
    }

    /// Waits until the lease is valid or lost, at most as long as a transaction may take. Returns whether it is valid
    /// then.
    pub(crate) async fn wait(&self) -> bool {
        let renewed = async {
            loop {
                let changed = self.changed.notified();
                if self.is_valid() || self.is_lost() {
                    return;
                }
                changed.await;
            }
        };
        // Whether the renewal came in time shows below.
        let _ = tokio::time::timeout(self.patience, renewed).await;
        self.is_valid()
    }
}

/// `beat` and `seen_at` of a node's row: any change of them shows that the node is alive.
pub(crate) type Mark = [i64; 2];

/// The other nodes, as this process has seen them.
#[derive(Debug)]
pub(crate) struct Judge {
    silence: Duration,
    looked_at: Option<Duration>,
    seen: HashMap<String, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    mark: Mark,
    /// When the mark was first seen with this value.
    since: Duration,
}

impl Judge {
    pub(crate) fn new(silence: Duration) -> Self {
        Judge {
            silence,
            looked_at: None,
            seen: HashMap::new(),
        }
    }

    /// Takes in the marks of all other nodes. Returns the nodes that are dead: their mark hasn't changed for all of
    /// `silence`, and this process has looked without a gap.
    pub(crate) fn look(
        &mut self,
        asked_at: Duration,
        answered_at: Duration,
        nodes: Vec<(String, Mark)>,
    ) -> Vec<(String, Mark)> {
        let gap_max = renew_every(self.silence).saturating_mul(3);
        let gap = self
            .looked_at
            .is_none_or(|at| answered_at.saturating_sub(at) > gap_max);
        self.looked_at = Some(answered_at);
        let before = std::mem::take(&mut self.seen);
        let mut dead = Vec::new();
        for (name, mark) in nodes {
            let known = before.get(&name).filter(|seen| seen.mark == mark && !gap);
            let since = known.map_or(answered_at, |seen| seen.since);
            if asked_at.saturating_sub(since) >= self.silence {
                dead.push((name.clone(), mark));
            }
            self.seen.insert(name, Seen { mark, since });
        }
        dead
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the simulation counts milliseconds and steps, no money"
)]
mod tests;

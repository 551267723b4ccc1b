//! Webhooks: delivers the events in the accounts' outbox.
//!
//! Each webhook has a worker of its own, a task that makes one delivery after the other, signed as specified by
//! [Standard Webhooks](https://www.standardwebhooks.com) and sent through the egress guard, until the receiver takes it
//! or it is given up. Deliveries and the times of their next attempts are in the database, so that nothing is lost with
//! the process. This crate knows nothing of requests, and no request waits for it.

mod backoff;
mod egress;
mod post;
mod signature;
mod target;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_accounts::{Accounts, EventKind, StoreError, Subscription};

pub use crate::egress::{Addresses, Resolve};
use crate::post::Post;
pub use crate::signature::{SigningKey, WrongKey};
pub use crate::target::{Target, WrongTarget};
use crate::worker::Worker;

/// How often a worker looks for due deliveries: the command line writes to the outbox, too.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// A webhook of the config: its receiver, and the events that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The webhook's name in the log and in the database, whatever its address.
    pub name: String,
    pub target: Target,
    pub key: SigningKey,
    pub kinds: Vec<EventKind>,
    /// Whether the receiver may have a private address.
    pub allow_private: bool,
    /// The time limit of one attempt, from resolving the name to the status.
    pub timeout: Duration,
    /// The age at which an undelivered event is given up.
    pub give_up_after: Duration,
}

/// The clock, randomness and name resolution that this crate uses, as arguments so that tests can replace them.
#[derive(Clone)]
pub struct Deps {
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Random numbers, which spread the attempts of many deliveries.
    pub random: fn() -> u64,
    pub resolve: Resolve,
    pub poll_every: Duration,
}

impl Deps {
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static, random: fn() -> u64) -> Self {
        Deps {
            now: Arc::new(now),
            random,
            resolve: egress::system(),
            poll_every: POLL_EVERY,
        }
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deps")
    }
}

/// All webhooks of a process.
#[derive(Debug)]
pub struct Webhooks {
    accounts: Accounts,
    deps: Deps,
    workers: watch::Sender<Arc<[Worker]>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Webhooks {
    /// Subscribes these webhooks to their events, and no others. With none, no events are written any more.
    pub async fn start(
        accounts: Accounts,
        webhooks: Vec<Webhook>,
        deps: Deps,
    ) -> Result<Self, StartError> {
        let started = Webhooks {
            accounts,
            deps,
            workers: watch::Sender::new(Arc::new([])),
        };
        started.replace(webhooks).await?;
        Ok(started)
    }

    /// Puts these webhooks in the place of those before, whose running attempts are cancelled and made again by a webhook of
    /// the same name. After an error the webhooks are those from before.
    pub async fn replace(&self, webhooks: Vec<Webhook>) -> Result<(), StartError> {
        let wanted = webhooks.iter().map(|webhook| Subscription {
            webhook: webhook.name.clone(),
            kinds: webhook.kinds.clone(),
        });
        let wanted = wanted.collect();
        let workers = self.workers_of(webhooks)?;
        self.accounts.subscribe(wanted).await?;
        self.workers.send_replace(workers);
        Ok(())
    }

    fn workers_of(&self, webhooks: Vec<Webhook>) -> Result<Arc<[Worker]>, StartError> {
        if webhooks.is_empty() {
            return Ok(Arc::new([]));
        }
        let post = Arc::new(Post::new(Arc::clone(&self.deps.resolve)).map_err(StartError::Tls)?);
        let worker = |webhook| Worker {
            webhook,
            accounts: self.accounts.clone(),
            post: Arc::clone(&post),
            deps: self.deps.clone(),
        };
        Ok(webhooks.into_iter().map(worker).collect())
    }

    /// Delivers until `stop`. A running attempt is then cancelled, and made again by the next process that serves.
    pub async fn run(&self, stop: CancellationToken) {
        let mut workers = self.workers.subscribe();
        while !stop.is_cancelled() {
            let current = Arc::clone(&workers.borrow_and_update());
            let replaced = stop.child_token();
            let waiting = async {
                // The sender is in `self`, so the channel is open.
                let _ = stop.run_until_cancelled(workers.changed()).await;
                replaced.cancel();
            };
            let delivering = join_all(current.iter().map(|worker| worker.run(&replaced)));
            tokio::join!(delivering, waiting);
        }
    }
}

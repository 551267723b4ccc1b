//! The worker of a webhook: a task that makes one delivery after the other, the oldest that is due first.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use weir_accounts::{Accounts, Delivery, StoreError};

use crate::backoff;
use crate::post::{Failure, Message, Post};
use crate::{Deps, Webhook};

/// How long a claim outlasts the time limit of its attempt: by then the attempt's outcome is written.
const CLAIM_MARGIN: Duration = Duration::from_secs(20);
/// The pause before looking again after the database failed.
const STORE_RETRY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) webhook: Webhook,
    pub(crate) accounts: Accounts,
    pub(crate) post: Arc<Post>,
    pub(crate) deps: Deps,
}

impl Worker {
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut every = tokio::time::interval(self.deps.poll_every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if let Err(error) = self.deliver_due(stop).await {
                tracing::warn!(webhook = self.webhook.name, %error, "nothing can be delivered now");
                every.reset_after(STORE_RETRY);
            }
        }
    }

    async fn deliver_due(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            let now = (self.deps.now)();
            let until = later(now, self.webhook.timeout.saturating_add(CLAIM_MARGIN));
            let name = &self.webhook.name;
            let claimed = self.accounts.claim_delivery(name, now, until).await?;
            let Some(delivery) = claimed else {
                return Ok(());
            };
            let message = Message {
                id: &delivery.event,
                timestamp: now.as_second(),
                body: &delivery.body,
            };
            let sending = self.post.send(&self.webhook, message);
            match stop.run_until_cancelled(sending).await {
                Some(Ok(())) => self.delivered(delivery).await?,
                Some(Err(failure)) => self.failed(delivery, &failure).await?,
                // Whether the receiver took it isn't known: the next process that serves sends it again.
                None => self.accounts.put_off_delivery(delivery, now).await?,
            }
        }
        Ok(())
    }

    async fn delivered(&self, delivery: Delivery) -> Result<(), StoreError> {
        let (webhook, event) = (&self.webhook.name, &delivery.event);
        tracing::debug!(
            webhook,
            event,
            kind = delivery.kind,
            attempts = delivery.attempts,
            "delivered"
        );
        self.accounts.end_delivery(delivery).await
    }

    async fn failed(&self, delivery: Delivery, failure: &Failure) -> Result<(), StoreError> {
        let Webhook {
            name,
            give_up_after,
            ..
        } = &self.webhook;
        let (event, attempts) = (&delivery.event, delivery.attempts);
        let now = (self.deps.now)();
        let next_at = later(now, backoff::delay(attempts, (self.deps.random)()));
        // Nothing is given up by a clock that may be wrong.
        let trusted = self.accounts.clock(now).await?.trusted;
        if next_at < later(delivery.created_at, *give_up_after) || !trusted {
            tracing::warn!(webhook = name, event, attempts, %failure, %next_at, "not delivered");
            self.accounts.put_off_delivery(delivery, next_at).await?;
            if !trusted {
                return Ok(());
            }
        } else {
            let kind = &delivery.kind;
            tracing::error!(webhook = name, event, kind, attempts, %failure, "given up");
            self.accounts.end_delivery(delivery).await?;
        }
        // While attempts hang, more events may come than there is time to try: those that are too old are given up at
        // once.
        let until = earlier(now, *give_up_after);
        let count = self.accounts.give_up_deliveries(name, until).await?;
        if count > 0 {
            tracing::error!(webhook = name, count, "given up, as they are too old");
        }
        Ok(())
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

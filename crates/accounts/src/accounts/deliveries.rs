//! The outbox, as the webhooks' workers use it.

use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::db::{StoreError, values};
use crate::deliveries::{Claim, Delivery, GiveUp, Release, Subscribe, Subscription, latest};

impl Accounts {
    /// Sets the webhooks that receive events from now on. Deliveries to all other webhooks are deleted.
    pub async fn subscribe(&self, webhooks: Vec<Subscription>) -> Result<(), StoreError> {
        self.0.writer.write(Subscribe { webhooks }).await
    }

    /// Claims the oldest delivery to a webhook that is due. No other process gets it before `until`.
    pub async fn claim_delivery(
        &self,
        webhook: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        // Usually none is due, and nothing has to be written.
        let due = self
            .0
            .readers
            .row(
                "SELECT 1 FROM delivery WHERE webhook = $1 AND (next_at <= $2 OR next_at > $3) LIMIT 1",
                values![webhook, now, latest(now)],
            )
            .await?;
        if due.is_none() {
            return Ok(None);
        }
        let webhook = webhook.to_owned();
        let claim = Claim {
            webhook,
            now,
            until,
        };
        self.0.writer.write(claim).await
    }

    /// Deletes a delivery that was delivered or is given up. Changes nothing if its claim has passed to another
    /// process.
    pub async fn end_delivery(&self, delivery: Delivery) -> Result<(), StoreError> {
        let next_at = None;
        self.0.writer.write(Release { delivery, next_at }).await
    }

    /// Has a failed delivery tried again at `next_at`.
    pub async fn put_off_delivery(
        &self,
        delivery: Delivery,
        next_at: Timestamp,
    ) -> Result<(), StoreError> {
        let next_at = Some(next_at);
        self.0.writer.write(Release { delivery, next_at }).await
    }

    /// Deletes all deliveries to a webhook that were created until `until`, claimed or not. Returns how many there
    /// were.
    pub async fn give_up_deliveries(
        &self,
        webhook: &str,
        until: Timestamp,
    ) -> Result<usize, StoreError> {
        let webhook = webhook.to_owned();
        self.0.writer.write(GiveUp { webhook, until }).await
    }
}

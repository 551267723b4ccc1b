//! Usage records that are older than the operator wants are deleted, some at a time. The sums by day stay, and so
//! does what the deleted ones were of them, for the books. A record that was refunded stays, too: the refund names it.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::account::AccountId;
use crate::db::{Connection, Readers, StoreError, values};
use crate::writer::{Operation, Written};

/// Records that one transaction deletes.
const BATCH: i64 = 500;

/// Whether the account has records to delete.
pub(crate) async fn due(
    readers: &Readers,
    account: &AccountId,
    before: Timestamp,
) -> Result<bool, StoreError> {
    let row = readers
        .row(
            "SELECT 1 FROM usage_record u WHERE u.account = $1 AND u.ended_at < $2
                 AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = u.id) LIMIT 1",
            values![account.as_str(), before],
        )
        .await?;
    Ok(row.is_some())
}

/// Deletes the oldest records of an account that ended before a time, and tells whether there are more.
#[derive(Debug)]
pub(crate) struct Prune {
    pub(crate) account: AccountId,
    pub(crate) before: Timestamp,
}

impl Operation for Prune {
    type Done = bool;
    type Refused = Infallible;
    type Answer = Result<bool, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> Written<bool, Infallible> {
        let account = self.account.as_str();
        let last = connection
            .row(
                "SELECT u.ended_at, u.id FROM usage_record u WHERE u.account = $1 AND u.ended_at < $2
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = u.id)
                 ORDER BY u.ended_at, u.id LIMIT 1 OFFSET $3",
                values![account, self.before, BATCH.saturating_sub(1)],
            )
            .await?;
        let (at, id) = match &last {
            Some(last) => (last.time(0)?, last.integer(1)?),
            // All that ended before: no record has the id 0.
            None => (self.before, 0),
        };
        connection
            .execute(
                "INSERT INTO usage_day (api_key, day, model, price, account, requests, prompt, cached, completion, reasoning,
                     cost, promo, pruned_requests, pruned_cost, pruned_promo)
                 SELECT u.api_key, u.ended_at / 86400000, u.model, u.price, u.account, 0, 0, 0, 0, 0, 0, 0, COUNT(*),
                     CAST(SUM(u.cost) AS BIGINT), CAST(SUM(u.promo) AS BIGINT) FROM usage_record u
                 WHERE u.account = $1 AND (u.ended_at, u.id) <= ($2, $3)
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = u.id)
                 GROUP BY u.api_key, u.ended_at / 86400000, u.model, u.price, u.account
                 ON CONFLICT (api_key, day, model, price) DO UPDATE SET
                     pruned_requests = usage_day.pruned_requests + excluded.pruned_requests,
                     pruned_cost = usage_day.pruned_cost + excluded.pruned_cost,
                     pruned_promo = usage_day.pruned_promo + excluded.pruned_promo",
                values![account, at, id],
            )
            .await?;
        connection
            .execute(
                "DELETE FROM usage_record WHERE account = $1 AND (ended_at, id) <= ($2, $3)
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = usage_record.id)",
                values![account, at, id],
            )
            .await?;
        Ok(Ok(last.is_some()))
    }

    /// A refund locks the balance, too: none comes between.
    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn answer(self, outcome: Written<bool, Infallible>) -> Result<bool, StoreError> {
        match outcome? {
            Ok(more) => Ok(more),
            Err(never) => match never {},
        }
    }
}

//! Deletes usage records that are older than the operator wants, in batches. The sums by day stay, and count what was
//! deleted (`pruned_…`), so that the books still add up. A refunded record stays, as the refund names it.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::clock;
use crate::db::{Connection, Readers, StoreError, values};
use crate::ids::AccountId;
use crate::tokens::sql::token_sql;
use crate::writer::{Operation, TxResult};

/// The most records that one transaction deletes.
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

/// A place in the order in which records are deleted: the end of a record, and its id.
pub(crate) type Place = (Timestamp, i64);

/// Deletes the oldest records of an account that come after a place and ended before a time. Returns the place of the
/// last one if there may be more, so that the next batch doesn't look at the records that stay.
#[derive(Debug)]
pub(crate) struct Prune {
    pub(crate) account: AccountId,
    pub(crate) after: Place,
    pub(crate) before: Timestamp,
    pub(crate) now: Timestamp,
}

impl Operation for Prune {
    type Done = Option<Place>;
    type Refused = Infallible;
    type Answer = Result<Option<Place>, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Option<Place>, Infallible> {
        if !clock::is_trusted(connection, self.now).await? {
            return Ok(Ok(None));
        }
        let account = self.account.as_str();
        let (from, after) = self.after;
        let last = connection
            .row(
                "SELECT u.ended_at, u.id FROM usage_record u
                 WHERE u.account = $1 AND (u.ended_at, u.id) > ($2, $3) AND u.ended_at < $4
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = u.id)
                 ORDER BY u.ended_at, u.id LIMIT 1 OFFSET $5",
                values![account, from, after, self.before, BATCH.saturating_sub(1)],
            )
            .await?;
        let last = match last {
            Some(last) => Some((last.time(0)?, last.integer(1)?)),
            None => None,
        };
        // Without a full batch: all records that ended before `before`. No record has the id 0.
        let (at, id) = last.unwrap_or((self.before, 0));
        connection
            .execute(
                token_sql!("INSERT INTO usage_day (api_key, day, model, price, account, requests, {@},
                     cost, promo, pruned_requests, pruned_cost, pruned_promo)
                 SELECT u.api_key, u.ended_at / 86400000, u.model, u.price, u.account, 0, {0}, 0, 0, COUNT(*),
                     CAST(SUM(u.cost) AS BIGINT), CAST(SUM(u.promo) AS BIGINT) FROM usage_record u
                 WHERE u.account = $1 AND (u.ended_at, u.id) > ($2, $3) AND (u.ended_at, u.id) <= ($4, $5)
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = u.id)
                 GROUP BY u.api_key, u.ended_at / 86400000, u.model, u.price, u.account
                 ON CONFLICT (api_key, day, model, price) DO UPDATE SET
                     pruned_requests = usage_day.pruned_requests + excluded.pruned_requests,
                     pruned_cost = usage_day.pruned_cost + excluded.pruned_cost,
                     pruned_promo = usage_day.pruned_promo + excluded.pruned_promo"),
                values![account, from, after, at, id],
            )
            .await?;
        connection
            .execute(
                "DELETE FROM usage_record WHERE account = $1 AND (ended_at, id) > ($2, $3) AND (ended_at, id) <= ($4, $5)
                     AND NOT EXISTS (SELECT 1 FROM movement m WHERE m.usage_record = usage_record.id)",
                values![account, from, after, at, id],
            )
            .await?;
        Ok(Ok(last))
    }

    /// The account whose balance refunds lock too. A batch of several accounts locks it before it prunes.
    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn answer(
        self,
        outcome: TxResult<Option<Place>, Infallible>,
    ) -> Result<Option<Place>, StoreError> {
        match outcome? {
            Ok(last) => Ok(last),
            Err(never) => match never {},
        }
    }
}

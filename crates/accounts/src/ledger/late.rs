//! Late charges: a request is settled after another node has ended its hold.
//!
//! A node that is cut off from the database for longer than its lease is taken for dead: its holds end at their last
//! checkpoints, and the rest of them is freed. It has noted beside the database what it delivered after that, and when
//! it is back, that is charged: by another transaction, with a usage record of its own, as far as the account has cash
//! for it. The charges are never more than was held.

use crate::db::{Connection, StoreError, values};
use crate::events::LowBalance;
use crate::ids::AccountId;
use crate::ledger::ending::{Closed, EndKind, Ended, Ending};
use crate::ledger::settlement::{Outcome, Settlement};
use crate::ledger::{Book, Posting, checked, post};
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};
use crate::usage::{self, Cost};

/// The usage record of a late charge has the attempt of its request plus this number.
pub(crate) const LATE_ATTEMPT: i64 = 1_000_000;

/// A hold that isn't open any more, and how it ended.
#[derive(Debug)]
struct Before {
    request: String,
    attempt: i64,
    account: AccountId,
    api_key: String,
    model: String,
    price_version: i64,
    price: Price,
    amount: Nanos,
    created_at: jiff::Timestamp,
    /// The charge so far and its token counts, if anything was charged.
    charged: Option<(Nanos, Counts)>,
    /// Another process has ended the hold at its last checkpoint, and there is no late charge yet.
    lost: bool,
}

impl Before {
    async fn read(connection: &mut Connection, hold: i64) -> Result<Self, StoreError> {
        // Locks the balance's row before anything is decided.
        let row = connection
            .row(
                "UPDATE balance SET held = held WHERE account = (SELECT account FROM hold WHERE id = $1) RETURNING account",
                values![hold],
            )
            .await?;
        row.ok_or_else(|| StoreError::contradiction(format!("there is no hold {hold}")))?;
        let row = connection
            .row(
                token_sql!("SELECT h.request, h.attempt, h.account, h.api_key, h.model, h.price,
                     h.amount, h.created_at, u.outcome, u.cost, h.state,
                     (SELECT id FROM ledger_transaction WHERE idempotency_key = 'late:' || h.request || ':' || h.attempt), {p.%}, {u.@}
                 FROM hold h JOIN price p ON p.id = h.price
                 LEFT JOIN usage_record u ON u.request = h.request AND u.attempt = h.attempt
                 WHERE h.id = $1"),
                values![hold],
            )
            .await?
            .ok_or_else(|| StoreError::contradiction(format!("hold {hold} has no price")))?;
        let outcome = row.text_or_null(8)?;
        let charged = match outcome.is_some() {
            true => Some((row.nanos(9)?, Counts::read(&row, 12 + PRICES)?)),
            false => None,
        };
        let ended_by_another = match outcome.as_deref() {
            Some(outcome) => outcome == Outcome::Expired.name(),
            None => row.text(10)? == "released",
        };
        Ok(Before {
            request: row.text(0)?,
            attempt: row.integer(1)?,
            account: AccountId::from(row.text(2)?),
            api_key: row.text(3)?,
            model: row.text(4)?,
            price_version: row.integer(5)?,
            price: Price::read(&row, 12)?,
            amount: row.nanos(6)?,
            created_at: row.time(7)?,
            charged,
            lost: ended_by_another && row.integer_or_null(11)?.is_none(),
        })
    }

    fn first(&self) -> Ended {
        Ended {
            charged: self.charged.map_or(Nanos::ZERO, |(charged, _)| charged),
            used: self.charged.is_some(),
        }
    }
}

/// Charges the difference to what was charged when another node ended the hold. In all other cases the first result
/// stands.
pub(crate) async fn end(connection: &mut Connection, ending: &Ending) -> Result<Ended, StoreError> {
    let before = Before::read(connection, ending.hold).await?;
    let first = before.first();
    let EndKind::Settle {
        counts,
        outcome,
        source,
    } = ending.kind
    else {
        return Ok(first);
    };
    if !before.lost {
        tracing::warn!(
            hold = ending.hold,
            "a hold was ended again; nothing is changed"
        );
        return Ok(first);
    }
    let cost = before.price.cost(&counts).unwrap_or(Nanos::MAX);
    let due = checked(cost.min(before.amount).checked_sub(first.charged))?;
    if !due.is_positive() {
        return Ok(first);
    }
    let charged = before.take(connection, ending, due).await?;
    if charged < due {
        let lost = checked(due.checked_sub(charged))?;
        tracing::error!(request = before.request, %lost, "a request that was settled late can't be charged in full");
    }
    let Some(transaction) = before.post(connection, ending, charged).await? else {
        return Ok(first);
    };
    let settlement = Settlement {
        counts: before.beyond(&counts),
        outcome,
        source,
        now: ending.now,
    };
    let cost = Cost {
        charged,
        promo: Nanos::ZERO,
    };
    usage::record(
        connection,
        transaction,
        &before.record(charged),
        &settlement,
        cost,
    )
    .await?;
    Ok(Ended {
        charged: checked(first.charged.checked_add(charged))?,
        used: true,
    })
}

impl Before {
    /// Takes the amount that is due out of the account's cash, as far as there is some. Returns the amount taken.
    async fn take(
        &self,
        connection: &mut Connection,
        ending: &Ending,
        due: Nanos,
    ) -> Result<Nanos, StoreError> {
        let account = self.account.as_str();
        let sql = "SELECT posted + credit_limit - held - promo FROM balance WHERE account = $1";
        let row = connection.row(sql, values![account]).await?;
        let cash = row.map_or(Ok(Nanos::ZERO), |row| row.nanos(0))?;
        let taken = due.min(cash).max(Nanos::ZERO);
        let row = connection
            .row(
                "UPDATE balance SET posted = posted - $2 WHERE account = $1
                 RETURNING posted, credit_limit, low_balance, low_day",
                values![account, taken],
            )
            .await?
            .ok_or_else(|| {
                StoreError::contradiction(format!("account {account} has no balance"))
            })?;
        let low = LowBalance::read(&row, [1, 2, 3])?;
        low.tell(connection, &self.account, row.nanos(0)?, ending.now)
            .await?;
        Ok(taken)
    }

    /// Writes the transaction of the late charge. `None` if nothing was taken.
    async fn post(
        &self,
        connection: &mut Connection,
        ending: &Ending,
        charged: Nanos,
    ) -> Result<Option<i64>, StoreError> {
        if charged == Nanos::ZERO {
            return Ok(None);
        }
        let sql = "SELECT posted FROM balance WHERE account = $1";
        let row = connection.row(sql, values![self.account.as_str()]).await?;
        let posting = Posting {
            kind: "late",
            idempotency_key: &format!("late:{}:{}", self.request, self.attempt),
            account: &self.account,
            hold: Some(ending.hold),
            reason: None,
            posted: row.map_or(Ok(Nanos::ZERO), |row| row.nanos(0))?,
            now: ending.now,
            entries: &[
                (Book::Wallet(&self.account), checked(charged.checked_neg())?),
                (Book::Revenue, charged),
            ],
        };
        post(connection, &posting).await
    }

    /// The tokens beyond those that were charged already.
    fn beyond(&self, counts: &Counts) -> Counts {
        let (_, before) = self.charged.unwrap_or_default();
        counts.saturating_sub(&before)
    }

    /// The request, as the usage record of the late charge describes it.
    fn record(&self, charged: Nanos) -> Closed {
        Closed {
            request: self.request.clone(),
            attempt: self.attempt.saturating_add(LATE_ATTEMPT),
            account: self.account.clone(),
            api_key: self.api_key.clone(),
            model: self.model.clone(),
            price_version: self.price_version,
            price: self.price,
            amount: charged,
            promo: Nanos::ZERO,
            created_at: self.created_at,
            delivered: None,
        }
    }
}

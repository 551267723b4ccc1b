//! Refunds: never more than a request cost, and each part of the cost in the form in which it was paid.

use jiff::Timestamp;

use crate::account::deleted;
use crate::clock;
use crate::db::{Connection, StoreError, values};
use crate::error::AdminError;
use crate::ids::AccountId;
use crate::ledger::movement::{Done, Move, Moved};
use crate::ledger::{Book, checked};
use crate::money::Nanos;
use crate::writer::TxResult;

/// A charge, and how much of it is left to refund.
#[derive(Debug)]
struct Charge {
    usage_record: i64,
    hold: i64,
    cost: Nanos,
    /// The part of `cost` that is left to refund.
    left: Nanos,
    /// The part of `left` that was paid in cash.
    cash_left: Nanos,
}

impl Move {
    pub(super) async fn refund(
        &self,
        connection: &mut Connection,
        account: &AccountId,
        request: &str,
        attempt: u32,
        amount: Option<Nanos>,
    ) -> TxResult<Moved, AdminError> {
        if let Some(deleted) = deleted(connection, account).await? {
            return Ok(Err(deleted));
        }
        let charge = Charge::of(connection, request, attempt).await?;
        let amount = amount.unwrap_or(charge.left);
        if !amount.is_positive() || amount > charge.left {
            let message = format!(
                "{} USD of this request can be refunded: it cost {} USD",
                charge.left, charge.cost
            );
            return Ok(Err(AdminError::invalid("amount", message)));
        }
        let cash = amount.min(charge.cash_left);
        let promo = checked(amount.checked_sub(cash))?;
        let returned = charge.give_back(connection, promo, self.by.now).await?;
        if returned < promo {
            let possible = checked(cash.checked_add(returned))?;
            let message = format!(
                "{possible} USD can be refunded now: the rest was paid with promotional credit that has expired"
            );
            return Ok(Err(AdminError::invalid("amount", message)));
        }
        let row = connection
            .row(
                "UPDATE balance SET posted = posted + $2, promo = promo + $3,
                     promo_expires_at = (SELECT MIN(expires_at) FROM promo WHERE account = $1 AND free > 0)
                 WHERE account = $1 RETURNING posted",
                values![account.as_str(), amount, promo],
            )
            .await?
            .ok_or_else(|| {
                StoreError::contradiction(format!("account {account} has no balance"))
            })?;
        let entries = [
            (Book::Revenue, checked(amount.checked_neg())?),
            (Book::Wallet(account), cash),
            (Book::Promo(account), promo),
        ];
        let done = Done {
            account,
            amount,
            posted: row.nanos(0)?,
            entries: &entries,
            usage_record: Some(charge.usage_record),
        };
        self.write(connection, done).await
    }
}

/// The account of a request. Locks the balance's row before anything else is read, so that two refunds of one request
/// come one after the other.
pub(super) async fn lock(
    connection: &mut Connection,
    request: &str,
    attempt: u32,
) -> Result<Option<AccountId>, StoreError> {
    let row = connection
        .row(
            "UPDATE balance SET held = held
             WHERE account = (SELECT account FROM usage_record WHERE request = $1 AND attempt = $2) RETURNING account",
            values![request, i64::from(attempt)],
        )
        .await?;
    row.map(|row| Ok(AccountId::from(row.text(0)?))).transpose()
}

impl Charge {
    async fn of(
        connection: &mut Connection,
        request: &str,
        attempt: u32,
    ) -> Result<Self, StoreError> {
        let row = connection
            .row(
                "SELECT u.id, h.id, u.cost, u.promo,
                     (SELECT CAST(COALESCE(SUM(e.amount), 0) AS BIGINT) FROM movement m
                      JOIN entry e ON e.ledger_transaction = m.ledger_transaction AND e.book = 'revenue'
                      WHERE m.usage_record = u.id),
                     CASE t.kind WHEN 'late' THEN 0 ELSE
                         (SELECT CAST(COALESCE(SUM(refunded), 0) AS BIGINT) FROM promo_use WHERE hold = h.id) END
                 FROM usage_record u JOIN ledger_transaction t ON t.id = u.ledger_transaction
                 JOIN hold h ON h.id = t.hold
                 WHERE u.request = $1 AND u.attempt = $2",
                values![request, i64::from(attempt)],
            )
            .await?
            .ok_or_else(|| StoreError::contradiction(format!("{request} has no hold")))?;
        let (cost, promo) = (row.nanos(2)?, row.nanos(3)?);
        // Refunds are negative revenue.
        let left = checked(cost.checked_add(row.nanos(4)?))?;
        let promo_left = checked(promo.checked_sub(row.nanos(5)?))?;
        Ok(Charge {
            usage_record: row.integer(0)?,
            hold: row.integer(1)?,
            cost,
            left,
            cash_left: checked(left.checked_sub(promo_left))?,
        })
    }

    /// Gives promo credit back to the promos that paid, the one that expires last first. Returns how much: less than
    /// `amount` if some have expired.
    async fn give_back(
        &self,
        connection: &mut Connection,
        amount: Nanos,
        now: Timestamp,
    ) -> Result<Nanos, StoreError> {
        if amount == Nanos::ZERO {
            return Ok(Nanos::ZERO);
        }
        let now = clock::lapse(connection, now).await?;
        let rows = connection
            .rows(
                "SELECT u.promo, u.used - u.refunded FROM promo_use u JOIN promo p ON p.id = u.promo
                 WHERE u.hold = $1 AND u.used > u.refunded AND p.expired_at IS NULL AND p.expires_at > $2
                 ORDER BY p.expires_at DESC, p.id DESC",
                values![self.hold, now],
            )
            .await?;
        let mut rest = amount;
        for row in rows {
            let (promo, returned) = (row.integer(0)?, row.nanos(1)?.min(rest));
            let sql = "UPDATE promo SET free = free + $2 WHERE id = $1";
            connection.execute(sql, values![promo, returned]).await?;
            let sql =
                "UPDATE promo_use SET refunded = refunded + $3 WHERE hold = $1 AND promo = $2";
            connection
                .execute(sql, values![self.hold, promo, returned])
                .await?;
            rest = checked(rest.checked_sub(returned))?;
        }
        checked(amount.checked_sub(rest))
    }
}

//! Ending a hold: the statements that charge its cost and give the rest back.

use crate::db::{Connection, Row, StoreError, values};
use crate::events::LowBalance;
use crate::failpoint;
use crate::ids::AccountId;
use crate::ledger::ending::{Closed, Closing, EndKind, Ended, Ending};
use crate::ledger::promo::{self, Spent};
use crate::ledger::settlement::{Outcome, Settlement, Source};
use crate::ledger::{Book, Posting, checked, late, post};
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};
use crate::usage::{self, Cost};

/// Ends an open hold. A hold that has ended before stays as it is; if another node ended it, the difference is charged
/// late.
pub(crate) async fn end(connection: &mut Connection, ending: &Ending) -> Result<Ended, StoreError> {
    let [empty, delivered] = ending.kind.states();
    let row = connection
        .row(
            token_sql!("UPDATE hold SET state = CASE WHEN checkpoint_at IS NULL THEN $2 ELSE $3 END, ended_at = $4
             WHERE id = $1 AND state = 'open'
             RETURNING request, attempt, account, api_key, model, price, amount, created_at,
                 checkpoint_at, state, promo, {(SELECT % FROM price WHERE price.id = hold.price)}, {@}"),
            values![ending.hold, empty, delivered, ending.now],
        )
        .await?;
    let Some(row) = row else {
        return late::end(connection, ending).await;
    };
    failpoint::pass("settlement-begun");
    let closed = Closed::read(&row)?;
    let state = row.text(9)?;
    let (counts, outcome, source) = match ending.kind {
        EndKind::Settle {
            counts,
            outcome,
            source,
        } => (Some(counts), outcome, source),
        EndKind::Release => (None, Outcome::Expired, Source::Estimated),
        EndKind::AtCheckpoint => (closed.delivered, Outcome::Expired, Source::Estimated),
    };
    let closing = Closing {
        request: &closed.request,
        price: closed.price,
        amount: closed.amount,
    };
    let charged = counts.map_or(Nanos::ZERO, |counts| closing.cost(&counts));
    let (transaction, promo) = closed.charge(connection, ending, &state, charged).await?;
    if let Some(counts) = counts {
        let settlement = Settlement {
            counts,
            outcome,
            source,
            now: ending.now,
        };
        let cost = Cost { charged, promo };
        usage::record(connection, transaction, &closed, &settlement, cost).await?;
    }
    Ok(Ended {
        charged,
        used: counts.is_some(),
    })
}

impl Closed {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let counts = Counts::read(row, 11 + PRICES)?;
        Ok(Closed {
            request: row.text(0)?,
            attempt: row.integer(1)?,
            account: AccountId::from(row.text(2)?),
            api_key: row.text(3)?,
            model: row.text(4)?,
            price_version: row.integer(5)?,
            price: Price::read(row, 11)?,
            amount: row.nanos(6)?,
            promo: row.nanos(10)?,
            created_at: row.time(7)?,
            delivered: row.time_or_null(8)?.map(|_| counts),
        })
    }

    /// Writes the transaction that takes the cost out of the hold and gives the rest back. Returns its id, and the part
    /// of the cost that promo credit paid.
    async fn charge(
        &self,
        connection: &mut Connection,
        ending: &Ending,
        state: &str,
        cost: Nanos,
    ) -> Result<(i64, Nanos), StoreError> {
        let account = &self.account;
        let spent = self.pay(connection, ending, cost).await?;
        let cash_held = checked(self.amount.checked_sub(self.promo))?;
        let cash_cost = checked(cost.checked_sub(spent.used))?;
        let posting = Posting {
            kind: match state {
                "settled" => "settle",
                _ => "release",
            },
            idempotency_key: &format!("end:{}:{}", self.request, self.attempt),
            account,
            hold: Some(ending.hold),
            reason: None,
            posted: spent.posted,
            now: ending.now,
            entries: &[
                (Book::Held(account), checked(self.amount.checked_neg())?),
                (Book::Revenue, cost),
                (Book::Promo(account), spent.returned),
                (Book::Promotion, spent.expired),
                (
                    Book::Wallet(account),
                    checked(cash_held.checked_sub(cash_cost))?,
                ),
            ],
        };
        let written = post(connection, &posting).await?.ok_or_else(|| {
            StoreError::contradiction(format!("the end of hold {} was posted before", ending.hold))
        })?;
        Ok((written, spent.used))
    }

    /// Takes the hold and its cost out of the balance: in one statement for most accounts, which have no promo credit.
    async fn pay(
        &self,
        connection: &mut Connection,
        ending: &Ending,
        cost: Nanos,
    ) -> Result<Spent, StoreError> {
        let account = &self.account;
        let row = connection
            .row(
                "UPDATE balance SET posted = posted - $2, held = held - $3 WHERE account = $1
                 RETURNING posted, promo_expires_at, credit_limit, low_balance, low_day",
                values![account.as_str(), cost, self.amount],
            )
            .await?
            .ok_or_else(|| {
                StoreError::contradiction(format!("account {account} has no balance"))
            })?;
        let free = row.time_or_null(1)?.is_some() && cost > self.promo;
        let spent = if free || self.promo.is_positive() {
            promo::settle(connection, account, ending.hold, cost, ending.now).await?
        } else {
            Spent {
                used: Nanos::ZERO,
                returned: Nanos::ZERO,
                expired: Nanos::ZERO,
                posted: row.nanos(0)?,
            }
        };
        let low = LowBalance::read(&row, [2, 3, 4])?;
        low.tell(connection, account, spent.posted, ending.now)
            .await?;
        Ok(spent)
    }
}

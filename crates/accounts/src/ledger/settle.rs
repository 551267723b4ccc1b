//! Ends of holds: charged, released, or charged at the last checkpoint.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::account::AccountId;
use crate::db::{Connection, Row, StoreError, values};
use crate::events::LowBalance;
use crate::failpoint;
use crate::ledger::hold::Hold;
use crate::ledger::late;
use crate::ledger::many::{self, Plain};
use crate::ledger::promo::Spent;
use crate::ledger::{Book, Posting, checked, post, promo};
use crate::money::{Counts, Nanos, Price};
use crate::usage::{self, Cost};
use crate::writer::{Operation, Written};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The tokens to charge for.
    pub counts: Counts,
    pub outcome: Outcome,
    pub source: Source,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The client hung up.
    Disconnected,
    EngineFailed,
    /// The hold was never settled: its process died, or was cut off from the database.
    Expired,
}

/// The origin of token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Engine,
    Upstream,
    Estimated,
}

impl Outcome {
    pub const ALL: [Outcome; 4] = [
        Outcome::Success,
        Outcome::Disconnected,
        Outcome::EngineFailed,
        Outcome::Expired,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Disconnected => "disconnected",
            Outcome::EngineFailed => "engine_failed",
            Outcome::Expired => "expired",
        }
    }
}

impl Source {
    pub const ALL: [Source; 3] = [Source::Engine, Source::Upstream, Source::Estimated];

    pub fn name(self) -> &'static str {
        match self {
            Source::Engine => "engine",
            Source::Upstream => "upstream",
            Source::Estimated => "estimated",
        }
    }
}

/// A settlement that failed: the hold is still open, and can be settled again.
#[derive(Debug, thiserror::Error)]
#[error("the hold was not settled: {error}")]
pub struct SettleError {
    pub hold: Hold,
    pub error: StoreError,
}

/// Ends a hold, which travels with the operation: it comes back if it could not be ended. If the caller has gone by
/// then, it is dropped, and so the writer ends it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) hold: Hold,
    pub(crate) how: How,
    pub(crate) now: Timestamp,
}

impl Operation for End {
    type Done = Ended;
    type Refused = Infallible;
    type Answer = Result<Nanos, SettleError>;

    async fn apply(&self, connection: &mut Connection) -> Written<Ended, Infallible> {
        let ending = Ending {
            hold: self.hold.id(),
            how: self.how,
            now: self.now,
        };
        end(connection, &ending).await.map(Ok)
    }

    fn account(&self) -> Option<&AccountId> {
        Some(self.hold.account())
    }

    fn is_risky(&self) -> bool {
        false
    }

    fn plain(&self) -> Option<Plain<'_>> {
        Some(Plain::End(self))
    }

    fn plainly(&self, written: many::Written) -> Option<Ended> {
        match written {
            many::Written::Ended { charged } => Some(Ended {
                charged,
                used: true,
            }),
            many::Written::Held { .. } => None,
        }
    }

    fn answer(mut self, outcome: Written<Ended, Infallible>) -> Result<Nanos, SettleError> {
        match outcome {
            Ok(Ok(ended)) => {
                failpoint::pass("settlement-committed");
                self.hold.close();
                Ok(ended.charged)
            }
            Ok(Err(never)) => match never {},
            Err(error) => Err(SettleError {
                hold: self.hold,
                error,
            }),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) hold: i64,
    pub(crate) how: How,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Settle {
        counts: Counts,
        outcome: Outcome,
        source: Source,
    },
    /// Nothing is charged.
    Release,
    /// The process is gone: charged for what the last checkpoint says was delivered, or released without one.
    AtCheckpoint,
}

impl How {
    /// The hold's state afterwards: without a checkpoint, and with one.
    fn states(self) -> [&'static str; 2] {
        match self {
            How::Settle { .. } => ["settled", "settled"],
            How::Release => ["released", "released"],
            How::AtCheckpoint => ["released", "settled"],
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) charged: Nanos,
    /// Whether there was anything to charge for.
    pub(crate) used: bool,
}

/// The facts that decide the cost of a hold that ends.
#[derive(Debug)]
pub(crate) struct Closing<'a> {
    request: &'a str,
    price: Price,
    amount: Nanos,
}

impl<'a> Closing<'a> {
    pub(crate) fn of(hold: &'a Hold) -> Self {
        Closing {
            request: hold.request(),
            price: hold.price(),
            amount: hold.amount(),
        }
    }

    /// The cost of `counts`, but never more than what was held.
    pub(crate) fn cost(&self, counts: &Counts) -> Nanos {
        match self.price.cost(counts) {
            Some(cost) if cost <= self.amount => cost,
            cost => {
                let (request, held) = (self.request, self.amount);
                tracing::error!(request, ?cost, %held, ?counts, "a request cost more than was held for it");
                self.amount
            }
        }
    }
}

/// The row of a hold that was just ended.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) request: String,
    pub(crate) attempt: i64,
    pub(crate) account: AccountId,
    pub(crate) api_key: String,
    pub(crate) model: String,
    pub(crate) price_version: i64,
    pub(crate) price: Price,
    pub(crate) amount: Nanos,
    /// The part of the amount that is promo credit.
    pub(crate) promo: Nanos,
    pub(crate) created_at: Timestamp,
    /// The counts of the last checkpoint, if there was one.
    pub(crate) delivered: Option<Counts>,
}

/// Ends an open hold. A hold that has ended before stays as it is; if another node ended it, the difference is charged
/// late.
pub(crate) async fn end(connection: &mut Connection, ending: &Ending) -> Result<Ended, StoreError> {
    let [empty, delivered] = ending.how.states();
    let row = connection
        .row(
            "UPDATE hold SET state = CASE WHEN checkpoint_at IS NULL THEN $2 ELSE $3 END, ended_at = $4
             WHERE id = $1 AND state = 'open'
             RETURNING request, attempt, account, api_key, model, price, amount, created_at,
                 checkpoint_at, prompt, cached, completion, reasoning,
                 (SELECT input FROM price WHERE price.id = hold.price),
                 (SELECT output FROM price WHERE price.id = hold.price),
                 (SELECT cached FROM price WHERE price.id = hold.price),
                 state, promo",
            values![ending.hold, empty, delivered, ending.now],
        )
        .await?;
    let Some(row) = row else {
        return late::end(connection, ending).await;
    };
    failpoint::pass("settlement-begun");
    let closed = Closed::read(&row)?;
    let state = row.text(16)?;
    let (counts, outcome, source) = match ending.how {
        How::Settle {
            counts,
            outcome,
            source,
        } => (Some(counts), outcome, source),
        How::Release => (None, Outcome::Expired, Source::Estimated),
        How::AtCheckpoint => (closed.delivered, Outcome::Expired, Source::Estimated),
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
        let counts = Counts {
            prompt: row.count(9)?,
            cached: row.count(10)?,
            completion: row.count(11)?,
            reasoning: row.count(12)?,
        };
        Ok(Closed {
            request: row.text(0)?,
            attempt: row.integer(1)?,
            account: AccountId::from(row.text(2)?),
            api_key: row.text(3)?,
            model: row.text(4)?,
            price_version: row.integer(5)?,
            price: Price {
                input: row.integer(13)?,
                output: row.integer(14)?,
                cached: Some(row.integer(15)?),
            },
            amount: row.nanos(6)?,
            promo: row.nanos(17)?,
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

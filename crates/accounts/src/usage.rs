//! Usage: a record for each settled attempt, and another one for its late charge, if there is one.

pub(crate) mod prune;
pub(crate) mod report;

use jiff::Timestamp;

use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::failpoint;
use crate::ids::{AccountId, KeyId};
use crate::ledger::ending::Closed;
use crate::ledger::settlement::{Outcome, Settlement, Source};
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};
use crate::utc_day::day;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    pub request: String,
    pub attempt: u32,
    pub key: KeyId,
    pub model: String,
    /// The price at admission; `cached` is always set.
    pub price: Price,
    pub counts: Counts,
    pub cost: Nanos,
    /// The part of the cost that promo credit paid.
    pub promo: Nanos,
    pub outcome: Outcome,
    pub source: Source,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

/// The largest count that enters the sums of days, so that they can't overflow. No engine reaches it.
const DAY_COUNT_MAX: u64 = 1 << 40;

/// The cost of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) charged: Nanos,
    /// The part that promo credit paid.
    pub(crate) promo: Nanos,
}

/// Writes the record and adds it to its day.
pub(crate) async fn record(
    connection: &mut Connection,
    transaction: i64,
    closed: &Closed,
    settlement: &Settlement,
    cost: Cost,
) -> Result<(), StoreError> {
    let counts = settlement.counts;
    connection
        .execute(
            token_sql!(
                "INSERT INTO usage_record (ledger_transaction, request, attempt, account, api_key, model, price,
                     held, cost, outcome, source, started_at, ended_at, promo, {@})
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, {$#15})"
            ),
            &counts.after(values![
                transaction,
                closed.request.as_str(),
                closed.attempt,
                closed.account.as_str(),
                closed.api_key.as_str(),
                closed.model.as_str(),
                closed.price_version,
                closed.amount,
                cost.charged,
                settlement.outcome.name(),
                settlement.source.name(),
                closed.created_at,
                settlement.now,
                cost.promo,
            ]),
        )
        .await?;
    failpoint::pass("usage-written");
    connection
        .execute(
            token_sql!(
                "INSERT INTO usage_day (api_key, day, model, price, account, requests, cost, promo, {@})
                 VALUES ($1, $2, $3, $4, $5, 1, $6, $7, {$#8})
                 ON CONFLICT (api_key, day, model, price) DO UPDATE SET
                     requests = usage_day.requests + 1, {@ = usage_day.@ + excluded.@},
                     cost = usage_day.cost + excluded.cost, promo = usage_day.promo + excluded.promo"
            ),
            &counts.at_most(DAY_COUNT_MAX).after(values![
                closed.api_key.as_str(),
                day(settlement.now),
                closed.model.as_str(),
                closed.price_version,
                closed.account.as_str(),
                cost.charged,
                cost.promo,
            ]),
        )
        .await
}

/// The columns of a usage record, which [`read`] reads, with its id and its account.
macro_rules! columns {
    () => {
        "u.request, u.attempt, u.api_key, u.model, u.cost, u.outcome, u.source, u.started_at, u.ended_at, u.promo,
         u.id, u.account, {p.%}, {u.@}"
    };
}
pub(crate) use columns;

/// Where the counts begin in the columns of a usage record.
const COUNTS_AT: usize = 12 + PRICES;

/// The newest records of an account, newest first.
pub(crate) async fn newest(
    readers: &Readers,
    account: &AccountId,
    limit: u32,
) -> Result<Vec<UsageRecord>, StoreError> {
    let rows = readers
        .rows(
            token_sql!(
                "SELECT ",
                columns!(),
                "
             FROM usage_record u JOIN price p ON p.id = u.price
             WHERE u.account = $1 ORDER BY u.id DESC LIMIT $2"
            ),
            values![account.as_str(), i64::from(limit)],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// The records of an account that ended from `from` to before `to`, newest first.
pub(crate) async fn between(
    readers: &Readers,
    account: &AccountId,
    [from, to]: [Timestamp; 2],
    limit: u32,
) -> Result<Vec<UsageRecord>, StoreError> {
    let rows = readers
        .rows(
            token_sql!(
                "SELECT ",
                columns!(),
                "
             FROM usage_record u JOIN price p ON p.id = u.price
             WHERE u.account = $1 AND u.ended_at >= $2 AND u.ended_at < $3
             ORDER BY u.ended_at DESC, u.id DESC LIMIT $4"
            ),
            values![account.as_str(), from, to, i64::from(limit)],
        )
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<UsageRecord, StoreError> {
    let named =
        |text: String| StoreError::contradiction(format!("{text} is neither outcome nor source"));
    let (outcome, source) = (row.text(5)?, row.text(6)?);
    Ok(UsageRecord {
        request: row.text(0)?,
        attempt: u32::try_from(row.integer(1)?)
            .map_err(|error| StoreError::contradiction(error.to_string()))?,
        key: KeyId::from(row.text(2)?),
        model: row.text(3)?,
        price: Price::read(row, 12)?,
        counts: Counts::read(row, COUNTS_AT)?,
        cost: row.nanos(4)?,
        promo: row.nanos(9)?,
        outcome: Outcome::ALL
            .into_iter()
            .find(|known| known.name() == outcome)
            .ok_or_else(|| named(outcome))?,
        source: Source::ALL
            .into_iter()
            .find(|known| known.name() == source)
            .ok_or_else(|| named(source))?,
        started_at: row.time(7)?,
        ended_at: row.time(8)?,
    })
}

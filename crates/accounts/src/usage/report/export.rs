//! Usage of an account in pages of bounded size, oldest first: by record, or by day. Each page is a range of an index.

use jiff::Timestamp;

use crate::db::{Readers, Row, StoreError, values};
use crate::ids::{AccountId, KeyId};
use crate::money::Nanos;
use crate::page::PAGE_MAX;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};
use crate::usage::columns;
use crate::usage::report::list::{UsageEntry, entry};
use crate::utc_day::{DAY_MS, day};

/// Selects usage; `None` selects all.
#[derive(Debug, Clone)]
pub struct UsageFilter {
    pub key: Option<String>,
    pub model: Option<String>,
    /// Records that ended at this time or later. Days are included whole, if the time touches them.
    pub from: Timestamp,
    /// Records that ended before this time.
    pub to: Timestamp,
}

/// The usage of a model by a key, at one price, on a UTC day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageDay {
    pub account: AccountId,
    pub key: KeyId,
    /// The begin of the day.
    pub day: Timestamp,
    pub model: String,
    /// `cached` is always set.
    pub price: Price,
    pub requests: u64,
    pub counts: Counts,
    pub cost: Nanos,
    /// The part of the cost that promo credit paid.
    pub promo: Nanos,
    price_version: i64,
}

/// At most `limit` records after the last one of the page before.
pub(crate) async fn records(
    readers: &Readers,
    account: &AccountId,
    filter: &UsageFilter,
    last: Option<&UsageEntry>,
    limit: u32,
) -> Result<Vec<UsageEntry>, StoreError> {
    let (at, id) = last.map_or((filter.from, 0), |last| (last.record.ended_at, last.id));
    let rows = readers
        .rows(
            token_sql!(
                "SELECT ",
                columns!(),
                " FROM usage_record u JOIN price p ON p.id = u.price
                 WHERE u.account = $1 AND (u.ended_at, u.id) > ($2, $3) AND u.ended_at < $4
                     AND ($5 = '' OR u.api_key = $5) AND ($6 = '' OR u.model = $6)
                 ORDER BY u.ended_at, u.id LIMIT $7"
            ),
            values![
                account.as_str(),
                at,
                id,
                filter.to,
                filter.key.as_deref().unwrap_or(""),
                filter.model.as_deref().unwrap_or(""),
                i64::from(limit.min(PAGE_MAX)),
            ],
        )
        .await?;
    rows.iter().map(entry).collect()
}

/// At most `limit` lines after the last one of the page before.
pub(crate) async fn days(
    readers: &Readers,
    account: &AccountId,
    filter: &UsageFilter,
    last: Option<&UsageDay>,
    limit: u32,
) -> Result<Vec<UsageDay>, StoreError> {
    let last = last.map_or((day(filter.from), "", "", 0), |last| {
        let key = last.key.as_str();
        (day(last.day), key, last.model.as_str(), last.price_version)
    });
    let rows = readers
        .rows(
            token_sql!("SELECT u.account, u.api_key, u.day, u.model, u.price, u.requests, u.cost, u.promo, {p.%}, {u.@}
             FROM usage_day u JOIN price p ON p.id = u.price
             WHERE u.account = $1 AND (u.day, u.api_key, u.model, u.price) > ($2, $3, $4, $5) AND u.day * $10 < $6
                 AND ($7 = '' OR u.api_key = $7) AND ($8 = '' OR u.model = $8)
             ORDER BY u.day, u.api_key, u.model, u.price LIMIT $9"),
            values![
                account.as_str(),
                last.0,
                last.1,
                last.2,
                last.3,
                filter.to,
                filter.key.as_deref().unwrap_or(""),
                filter.model.as_deref().unwrap_or(""),
                i64::from(limit.min(PAGE_MAX)),
                DAY_MS,
            ],
        )
        .await?;
    rows.iter().map(read_day).collect()
}

fn read_day(row: &Row) -> Result<UsageDay, StoreError> {
    let begins = row.integer(2)?.saturating_mul(DAY_MS);
    Ok(UsageDay {
        account: AccountId::from(row.text(0)?),
        key: KeyId::from(row.text(1)?),
        day: Timestamp::from_millisecond(begins)
            .map_err(|error| StoreError::contradiction(error.to_string()))?,
        model: row.text(3)?,
        price_version: row.integer(4)?,
        price: Price::read(row, 8)?,
        requests: row.count(5)?,
        counts: Counts::read(row, 8 + PRICES)?,
        cost: row.nanos(6)?,
        promo: row.nanos(7)?,
    })
}

//! Reports of usage: sums for bills, and the records themselves.

pub(crate) mod export;
pub(crate) mod list;

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use crate::db::{Readers, Row, StoreError, values};
use crate::ids::AccountId;
use crate::ledger::checked;
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};
use crate::utc_day::day;

const HOUR_MS: i64 = 3_600_000;

/// The period of a bill's lines, by UTC. Weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cycle {
    Hour,
    Day,
    Week,
    Month,
}

/// The cost of a model at one price within one cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillLine {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub model: String,
    /// `cached` is always set.
    pub price: Price,
    pub requests: u64,
    pub counts: Counts,
    pub cost: Nanos,
    /// The part of the cost that promo credit paid.
    pub promo: Nanos,
}

/// The query of a bill's lines. Their time is in the unit that [`Cycle::bounds`] takes.
macro_rules! lines {
    ($time:literal, $requests:literal, $from:literal) => {
        concat!(
            "SELECT ", $time, ", u.model, u.price, CAST(", $requests, " AS BIGINT),
                 CAST(SUM(u.cost) AS BIGINT), CAST(SUM(u.promo) AS BIGINT), {p.%}, {CAST(SUM(u.@) AS BIGINT)}
             FROM ", $from, " u JOIN price p ON p.id = u.price
             WHERE u.account = $1 AND "
        )
    };
}

/// The lines of an account, the oldest first, by model and price. Records count by when they ended. Cycles longer than
/// an hour are summed up from whole days: all days that the time from `from` to before `to` touches.
pub(crate) async fn bill(
    readers: &Readers,
    account: &AccountId,
    cycle: Cycle,
    [from, to]: [Timestamp; 2],
) -> Result<Vec<BillLine>, StoreError> {
    let account = account.as_str();
    let rows = if cycle == Cycle::Hour {
        let sql = token_sql!(
            lines!("u.ended_at / 3600000", "COUNT(*)", "usage_record"),
            "u.ended_at >= $2 AND u.ended_at < $3
             GROUP BY u.ended_at / 3600000, u.model, u.price, {p.%}"
        );
        readers.rows(sql, values![account, from, to]).await?
    } else {
        let sql = token_sql!(
            lines!("u.day", "SUM(u.requests)", "usage_day"),
            "u.day >= $2 AND u.day <= $3
             GROUP BY u.day, u.model, u.price, {p.%}"
        );
        let last = day(to.checked_sub(1.millisecond()).unwrap_or(to));
        readers.rows(sql, values![account, day(from), last]).await?
    };
    let mut lines: BTreeMap<(Timestamp, String, i64), BillLine> = BTreeMap::new();
    for row in &rows {
        let (price, line) = read(row, cycle)?;
        let key = (line.starts_at, line.model.clone(), price);
        match lines.get_mut(&key) {
            Some(sum) => sum.add(&line)?,
            None => {
                lines.insert(key, line);
            }
        }
    }
    Ok(lines.into_values().collect())
}

fn read(row: &Row, cycle: Cycle) -> Result<(i64, BillLine), StoreError> {
    let [starts_at, ends_at] = cycle.bounds(row.integer(0)?)?;
    let line = BillLine {
        starts_at,
        ends_at,
        model: row.text(1)?,
        price: Price::read(row, 6)?,
        requests: row.count(3)?,
        counts: Counts::read(row, 6 + PRICES)?,
        cost: row.nanos(4)?,
        promo: row.nanos(5)?,
    };
    Ok((row.integer(2)?, line))
}

impl BillLine {
    fn add(&mut self, other: &BillLine) -> Result<(), StoreError> {
        let too_large = || StoreError::contradiction("usage is too large to count");
        let requests = self.requests.checked_add(other.requests);
        self.requests = requests.ok_or_else(too_large)?;
        let counts = self.counts.checked_add(&other.counts);
        self.counts = counts.ok_or_else(too_large)?;
        self.cost = checked(self.cost.checked_add(other.cost))?;
        self.promo = checked(self.promo.checked_add(other.promo))?;
        Ok(())
    }
}

impl Cycle {
    /// The begin and the end of the cycle that contains an hour ([`Cycle::Hour`]) or else a day, each counted since
    /// 1970.
    fn bounds(self, at: i64) -> Result<[Timestamp; 2], StoreError> {
        let bounds = || -> Result<_, jiff::Error> {
            if self == Cycle::Hour {
                let begin = Timestamp::from_millisecond(at.saturating_mul(HOUR_MS))?;
                return Ok([begin, begin.checked_add(1.hour())?]);
            }
            let date = Date::constant(1970, 1, 1).checked_add(Span::new().try_days(at)?)?;
            let (begin, length) = match self {
                Cycle::Hour | Cycle::Day => (date, 1.day()),
                Cycle::Week => (monday(date)?, 1.week()),
                Cycle::Month => (date.first_of_month(), 1.month()),
            };
            Ok([start(begin)?, start(begin.checked_add(length)?)?])
        };
        bounds().map_err(|error| StoreError::contradiction(error.to_string()))
    }
}

fn monday(date: Date) -> Result<Date, jiff::Error> {
    let since = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(Span::new().try_days(since)?)
}

fn start(date: Date) -> Result<Timestamp, jiff::Error> {
    Ok(date.to_zoned(TimeZone::UTC)?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_those_of_utc() {
        let check = |cycle: Cycle, at: &str, begin: &str, end: &str| {
            let time = |text: &str| text.parse::<Timestamp>().unwrap();
            let units = match cycle {
                Cycle::Hour => time(at).as_millisecond().div_euclid(HOUR_MS),
                Cycle::Day | Cycle::Week | Cycle::Month => day(time(at)),
            };
            let found = cycle.bounds(units).unwrap();
            assert_eq!(found, [time(begin), time(end)], "{cycle:?} {at}");
        };
        let at = "2024-02-29T23:59:59.999Z";
        check(
            Cycle::Hour,
            at,
            "2024-02-29T23:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Cycle::Day,
            at,
            "2024-02-29T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Cycle::Week,
            at,
            "2024-02-26T00:00:00Z",
            "2024-03-04T00:00:00Z",
        );
        check(
            Cycle::Month,
            at,
            "2024-02-01T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        let monday = "2024-12-30T00:00:00Z";
        check(Cycle::Week, monday, monday, "2025-01-06T00:00:00Z");
        check(
            Cycle::Week,
            "2025-01-05T12:00:00Z",
            monday,
            "2025-01-06T00:00:00Z",
        );
        check(
            Cycle::Month,
            "2024-12-31T00:00:00Z",
            "2024-12-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
        );
    }
}

//! Spend caps of keys: the most that a key may cost in all, in a UTC month and on a UTC day.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::CLOCK_GAP_MAX;
use crate::db::{Readers, Row, StoreError, values};
use crate::error::AdminError;
use crate::ids::KeyId;
use crate::money::Nanos;
use crate::utc_day::{DAY_MS, day, first_of_month, monday};

/// The most that requests of a key may cost; `None` is no cap. Charges count when they are made, by UTC, and what open
/// requests hold counts as charged. Refunds aren't deducted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpendCaps {
    pub total: Option<Nanos>,
    pub month: Option<Nanos>,
    pub day: Option<Nanos>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapPeriod {
    Total,
    Month,
    Day,
}

impl fmt::Display for CapPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CapPeriod::Total => "total",
            CapPeriod::Month => "month",
            CapPeriod::Day => "day",
        })
    }
}

impl SpendCaps {
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        let [total, month, day] = [self.total, self.month, self.day];
        if [total, month, day]
            .into_iter()
            .flatten()
            .any(Nanos::is_negative)
        {
            let message = "a spend cap can't be negative";
            return Err(AdminError::invalid("caps", message));
        }
        Ok(())
    }

    pub(crate) fn columns(&self) -> [Option<i64>; 3] {
        [self.total, self.month, self.day].map(|cap| cap.map(Nanos::get))
    }

    /// Reads the three columns that begin at `column`.
    pub(crate) fn read(row: &Row, column: usize) -> Result<Self, StoreError> {
        let cap = |n: usize| -> Result<_, StoreError> {
            let cap = row.integer_or_null(column.saturating_add(n))?;
            Ok(cap.map(Nanos::new))
        };
        Ok(SpendCaps {
            total: cap(0)?,
            month: cap(1)?,
            day: cap(2)?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let [total, month, day] =
            [self.total, self.month, self.day].map(|cap| cap.map(|cap| cap.to_string()));
        json!({"total": total, "month": month, "day": day})
    }
}

/// The last day whose costs count for the current period, a week from now. A charge on a later day than today was made
/// before the clock was set back, and counts as today's. One that is more than a week away was made by a wrong clock,
/// and would keep the key locked out until then.
pub(crate) fn last_day(now: Timestamp) -> i64 {
    let week = CLOCK_GAP_MAX.as_millis().div_euclid(DAY_MS.into());
    day(now).saturating_add(i64::try_from(week).unwrap_or(0))
}

/// The cost of a key's requests by UTC period, and the amount that its open requests hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeySpend {
    pub total: Nanos,
    pub month: Nanos,
    /// Since Monday.
    pub week: Nanos,
    pub day: Nanos,
    pub held: Nanos,
}

pub(crate) async fn spend(
    readers: &Readers,
    key: &KeyId,
    now: Timestamp,
) -> Result<KeySpend, StoreError> {
    let row = readers
        .row(
            "SELECT CAST(COALESCE(SUM(cost), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN day BETWEEN $2 AND $5 THEN cost END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN day BETWEEN $3 AND $5 THEN cost END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN day BETWEEN $4 AND $5 THEN cost END), 0) AS BIGINT),
                 (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM hold h
                  WHERE h.account = (SELECT account FROM api_key WHERE id = $1) AND h.api_key = $1 AND h.state = 'open')
             FROM usage_day WHERE api_key = $1",
            values![key.as_str(), first_of_month(now), monday(now), day(now), last_day(now)],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction("a sum has no row"))?;
    Ok(KeySpend {
        total: row.nanos(0)?,
        month: row.nanos(1)?,
        week: row.nanos(2)?,
        day: row.nanos(3)?,
        held: row.nanos(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_weeks_and_months_are_those_of_utc() {
        let check = |at: &str, today: i64, week: i64, month: i64| {
            let at = at.parse().unwrap();
            let found = (day(at), monday(at), first_of_month(at));
            assert_eq!(found, (today, week, month), "{at}");
        };
        check("1970-01-01T00:00:00Z", 0, -3, 0);
        check("1970-02-03T23:59:59.999Z", 33, 32, 31);
        check("1969-12-31T23:59:59.999Z", -1, -3, -31);
        check("2024-02-29T12:00:00Z", 19_782, 19_779, 19_754);
        check("2024-02-26T00:00:00Z", 19_779, 19_779, 19_754);
        check("2024-02-25T23:59:59Z", 19_778, 19_772, 19_754);
    }
}

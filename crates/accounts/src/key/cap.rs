//! Spend caps of keys: the most that a key may cost in all, in a UTC month and on a UTC day.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::account::AdminError;
use crate::clock::{self, CLOCK_GAP_MAX};
use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::key::KeyId;
use crate::ledger::hold::HoldError;
use crate::money::Nanos;
use crate::writer::Written;

pub(crate) const DAY_MS: i64 = 86_400_000;

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

/// The UTC day of a time, in days since 1970.
pub(crate) fn day(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(DAY_MS)
}

/// The last day whose costs count for the current period, a week from now. A charge on a later day than today was made
/// before the clock was set back, and counts as today's. One that is more than a week away was made by a wrong clock,
/// and would keep the key locked out until then.
fn last_day(now: Timestamp) -> i64 {
    let week = CLOCK_GAP_MAX.as_millis().div_euclid(DAY_MS.into());
    day(now).saturating_add(i64::try_from(week).unwrap_or(0))
}

/// The first day of the UTC month of a time.
fn first_of_month(at: Timestamp) -> i64 {
    let date = at.to_zoned(TimeZone::UTC).date();
    day(at).saturating_sub(i64::from(date.day()).saturating_sub(1))
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

/// The first day of the UTC week of a time: a Monday.
fn monday(at: Timestamp) -> i64 {
    // The first of January 1970 was a Thursday.
    let today = day(at);
    today.saturating_sub(today.saturating_add(3).rem_euclid(7))
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

/// A hold, as its key's caps are checked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a str,
    /// The amount to hold in addition.
    pub(crate) more: Nanos,
    /// The amount that the hold had before.
    pub(crate) own: Nanos,
    /// The amount that the hold's row has by now: this part of the key's open holds is its own.
    pub(crate) booked: Nanos,
    pub(crate) now: Timestamp,
}

/// Applies the key's caps to a reservation. Refuses what the balance covers but the caps don't allow; if the balance
/// doesn't cover it, lowers `available` to what the caps would allow. The balance's row must be locked, so that no
/// other request spends or holds with this key meanwhile.
pub(crate) async fn narrow<T>(
    connection: &mut Connection,
    reserved: Result<T, HoldError>,
    ask: Ask<'_>,
) -> Written<T, HoldError> {
    let Some(left) = left(connection, &ask).await? else {
        return Ok(reserved);
    };
    Ok(match reserved {
        Ok(_) if left.amount < ask.more => Err(HoldError::KeyCap {
            period: left.period,
            available: left.amount,
            in_flight: left.without_holds >= ask.more,
        }),
        Ok(reserved) => Ok(reserved),
        Err(HoldError::BalanceTooLow { available }) => Err(HoldError::BalanceTooLow {
            available: available.min(left.amount),
        }),
        Err(HoldError::InFlight { available, held }) => Err(HoldError::InFlight {
            available: available.min(left.amount),
            held,
        }),
        Err(other) => Err(other),
    })
}

/// The amount that a key may still hold, by its tightest cap.
#[derive(Debug, Clone, Copy)]
struct Left {
    period: CapPeriod,
    amount: Nanos,
    /// The amount if no other request of the key were open.
    without_holds: Nanos,
}

async fn left(connection: &mut Connection, ask: &Ask<'_>) -> Result<Option<Left>, StoreError> {
    let today = clock::lapse(connection, ask.now).await?;
    let until = last_day(ask.now.max(today));
    let row = connection
        .row(
            "SELECT k.cap_total, k.cap_month, k.cap_day,
                 CASE WHEN k.cap_total IS NULL THEN 0 ELSE
                     (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id) END,
                 (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id AND d.day BETWEEN $2 AND $4),
                 (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id AND d.day BETWEEN $3 AND $4),
                 (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM hold h
                  WHERE h.account = k.account AND h.api_key = k.id AND h.state = 'open')
             FROM api_key k WHERE k.id = $1",
            values![ask.key, first_of_month(today), day(today), until],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let caps = SpendCaps::read(&row, 0)?;
    let open = row.nanos(6)?.get();
    let own = ask.own.get();
    let others = open.saturating_sub(ask.booked.get());
    let periods = [
        (CapPeriod::Total, caps.total, row.integer(3)?),
        (CapPeriod::Month, caps.month, row.integer(4)?),
        (CapPeriod::Day, caps.day, row.integer(5)?),
    ];
    let left = periods.into_iter().filter_map(|(period, cap, spent)| {
        let without_holds = cap?.get().saturating_sub(spent).saturating_sub(own);
        let amount = without_holds.saturating_sub(others);
        Some(Left {
            period,
            amount: Nanos::new(amount.max(0)),
            without_holds: Nanos::new(without_holds.max(0)),
        })
    });
    Ok(left.min_by_key(|left| left.amount))
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

//! An account's top-ups by month, which decide its tier.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::db::{Readers, StoreError, values};
use crate::ids::AccountId;
use crate::ledger::Book;
use crate::money::Nanos;

/// The months that count: the current one and the two before.
const MONTHS: i64 = 3;

/// The highest sum of top-ups within one UTC month, of the current month and the two before.
pub(crate) async fn highest_monthly(
    readers: &Readers,
    account: &AccountId,
    now: Timestamp,
) -> Result<Nanos, StoreError> {
    let wallet = Book::Wallet(account).name();
    let mut highest = Nanos::ZERO;
    for back in 0..MONTHS {
        let [begin, end] = month(now, back)?;
        let row = readers
            .row(
                "SELECT CAST(COALESCE(SUM(e.amount), 0) AS BIGINT) FROM ledger_transaction t
                 JOIN entry e ON e.ledger_transaction = t.id AND e.book = $2
                 WHERE t.kind = 'credit' AND t.account = $1 AND t.created_at >= $3 AND t.created_at < $4",
                values![account.as_str(), wallet.as_str(), begin, end],
            )
            .await?;
        let paid = row.map_or(Ok(Nanos::ZERO), |row| row.nanos(0))?;
        highest = highest.max(paid);
    }
    Ok(highest)
}

/// The begin and the end of the UTC month that was `back` months ago.
fn month(now: Timestamp, back: i64) -> Result<[Timestamp; 2], StoreError> {
    let first = now.to_zoned(TimeZone::UTC).date().first_of_month();
    let start = |date: Date| date.to_zoned(TimeZone::UTC).map(|start| start.timestamp());
    let bounds = || -> Result<_, jiff::Error> {
        let begin = first.checked_sub(Span::new().try_months(back)?)?;
        let end = begin.checked_add(Span::new().try_months(1)?)?;
        Ok([start(begin)?, start(end)?])
    };
    bounds().map_err(|error| StoreError::contradiction(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_utc() {
        let check = |now: &str, back: i64, begin: &str, end: &str| {
            let time = |text: &str| text.parse::<Timestamp>().unwrap();
            let found = month(time(now), back).unwrap();
            assert_eq!(found, [time(begin), time(end)], "{now} {back}");
        };
        let [march, january] = ["2024-03-01T00:00:00Z", "2024-01-01T00:00:00Z"];
        check("2024-03-31T23:59:59.999Z", 0, march, "2024-04-01T00:00:00Z");
        check(march, 0, march, "2024-04-01T00:00:00Z");
        check("2024-03-31T12:00:00Z", 1, "2024-02-01T00:00:00Z", march);
        check(january, 1, "2023-12-01T00:00:00Z", january);
        check("2024-03-31T12:00:00Z", 2, january, "2024-02-01T00:00:00Z");
    }
}

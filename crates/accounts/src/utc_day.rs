//! UTC days, weeks and months, in days since 1970.

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(crate) const DAY_MS: i64 = 86_400_000;

/// The UTC day of a time, in days since 1970.
pub(crate) fn day(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(DAY_MS)
}

/// The first day of the UTC month of a time.
pub(crate) fn first_of_month(at: Timestamp) -> i64 {
    let date = at.to_zoned(TimeZone::UTC).date();
    day(at).saturating_sub(i64::from(date.day()).saturating_sub(1))
}

/// The first day of the UTC week of a time: a Monday.
pub(crate) fn monday(at: Timestamp) -> i64 {
    // The first of January 1970 was a Thursday.
    let today = day(at);
    today.saturating_sub(today.saturating_add(3).rem_euclid(7))
}

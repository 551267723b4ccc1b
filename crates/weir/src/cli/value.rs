//! Types of option values.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use weir_accounts::Expiry;
use weir_server::export::{MOMENT_EXPECTED, moment};

use crate::config::address;

/// A value, or `none` to remove the one that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for OrNone<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(OrNone(None));
        }
        let value = text.parse().map_err(|error| format!("{error}; or none"));
        value.map(|value| OrNone(Some(value)))
    }
}

/// The option `--listen`.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    address::listen(text).ok_or("an address has a port, as 127.0.0.1:8080 or localhost:8080")
}

/// The option `--host`.
pub(crate) fn host(text: &str) -> Result<IpAddr, &'static str> {
    address::host(text).ok_or("a host is an address of this machine, 0.0.0.0 for all, or localhost")
}

/// A length of time, such as `90s`, `15m`, `12h` or `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length(pub(crate) SignedDuration);

impl FromStr for Length {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a length of time is a number with s, m, h or d, such as 12h";
        let unit = text.chars().last().ok_or(WRONG)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(WRONG),
        };
        let number = &text[..text.len() - unit.len_utf8()];
        let number: u32 = number.parse().map_err(|_| WRONG)?;
        Ok(Length(SignedDuration::from_secs(
            i64::from(number) * seconds,
        )))
    }
}

/// A point in time: RFC 3339 such as `2027-01-01T00:00:00Z`, or a length of time from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When(Expiry);

impl From<When> for Expiry {
    fn from(When(expiry): When) -> Self {
        expiry
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a time is such as 2027-01-01T00:00:00Z, or 30d for in 30 days";
        if let Ok(Length(length)) = text.parse() {
            return Ok(When(Expiry::In(length)));
        }
        let at = text.parse().map(Expiry::At);
        at.map(When).map_err(|_| WRONG)
    }
}

/// A point in time, which may be past: RFC 3339, or a UTC day, which stands for its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        moment(text).map(Moment).ok_or(MOMENT_EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, when: Option<Expiry>| {
            let read = text.parse::<When>().ok().map(Expiry::from);
            assert_eq!(read, when, "{text}");
        };
        let in_seconds = |seconds| Some(Expiry::In(SignedDuration::from_secs(seconds)));
        check("90s", in_seconds(90));
        check("12h", in_seconds(43_200));
        check("1d", in_seconds(86_400));
        let new_year: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        check("2027-01-01T00:00:00Z", Some(Expiry::At(new_year)));
        for text in [
            "",
            "d",
            "-1d",
            "1",
            "1w",
            "1.5h",
            "tomorrow",
            "2027-01-01",
            "5é",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn moments_are_read() {
        let check = |text: &str, moment: Option<&str>| {
            let read = text.parse::<Moment>().ok().map(|Moment(at)| at);
            assert_eq!(read, moment.map(|at| at.parse().unwrap()), "{text}");
        };
        check("2026-01-31", Some("2026-01-31T00:00:00Z"));
        check("2026-01-31T12:30:00Z", Some("2026-01-31T12:30:00Z"));
        check("2026-01-31T01:00:00+01:00", Some("2026-01-31T00:00:00Z"));
        for text in [
            "",
            "2026-02-30",
            "2026-01-31T12:30",
            "2026-1-31",
            "30d",
            "yesterday!",
        ] {
            check(text, None);
        }
    }
}

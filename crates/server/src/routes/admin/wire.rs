//! Conversions between the types of the administrative API and those of the accounts crate.

use jiff::Timestamp;
use weir_accounts::{KeyRole, Nanos, Page, Quotas, SpendCaps, Tier};
use weir_api::admin::{self, Caps, Limits, Role, Time, Usd};

use crate::error::ApiError;

/// Most entries of a page.
const PAGE_MAX: u32 = 500;
const PAGE_DEFAULT: u32 = 100;

pub(crate) fn usd(amount: Nanos) -> Usd {
    Usd(amount.to_string())
}

pub(super) fn amount(param: &str, Usd(text): &Usd) -> Result<Nanos, ApiError> {
    let amount = text.parse();
    amount.map_err(|error| ApiError::invalid(param, format!("{param}: {error}")))
}

/// Truncated to the millisecond like stored times, so that the answer to a request equals the answer to its replay.
pub(crate) fn time(at: Timestamp) -> Time {
    let written = Timestamp::from_millisecond(at.as_millisecond());
    Time(written.unwrap_or(at).to_string())
}

pub(super) fn timestamp(param: &str, Time(text): &Time) -> Result<Timestamp, ApiError> {
    let message = || format!("{param}: a time is such as 2027-01-01T00:00:00Z");
    text.parse()
        .map_err(|_| ApiError::invalid(param, message()))
}

pub(super) fn limits(quotas: Quotas) -> Limits {
    Limits {
        requests_per_minute: quotas.requests_per_minute,
        tokens_per_minute: quotas.tokens_per_minute,
        concurrent_requests: quotas.concurrent_requests,
    }
}

pub(super) fn quotas(limits: Limits) -> Quotas {
    Quotas {
        requests_per_minute: limits.requests_per_minute,
        tokens_per_minute: limits.tokens_per_minute,
        concurrent_requests: limits.concurrent_requests,
    }
}

pub(super) fn caps(caps: SpendCaps) -> Caps {
    Caps {
        total: caps.total.map(usd),
        month: caps.month.map(usd),
        day: caps.day.map(usd),
    }
}

pub(super) fn spend_caps(caps: &Caps) -> Result<SpendCaps, ApiError> {
    let cap = |param, cap: &Option<Usd>| cap.as_ref().map(|cap| amount(param, cap)).transpose();
    Ok(SpendCaps {
        total: cap("caps.total", &caps.total)?,
        month: cap("caps.month", &caps.month)?,
        day: cap("caps.day", &caps.day)?,
    })
}

pub(super) fn role(role: KeyRole) -> Role {
    match role {
        KeyRole::Inference => Role::Inference,
        KeyRole::Admin => Role::Admin,
        KeyRole::Billing => Role::Billing,
        KeyRole::Viewer => Role::Viewer,
    }
}

pub(super) fn key_role(role: Role) -> KeyRole {
    match role {
        Role::Inference => KeyRole::Inference,
        Role::Admin => KeyRole::Admin,
        Role::Billing => KeyRole::Billing,
        Role::Viewer => KeyRole::Viewer,
    }
}

pub(super) fn shown_tier(tier: Tier) -> admin::Tier {
    match tier {
        Tier::T1 => admin::Tier::T1,
        Tier::T2 => admin::Tier::T2,
        Tier::T3 => admin::Tier::T3,
        Tier::T4 => admin::Tier::T4,
        Tier::T5 => admin::Tier::T5,
    }
}

pub(super) fn tier(tier: admin::Tier) -> Tier {
    match tier {
        admin::Tier::T1 => Tier::T1,
        admin::Tier::T2 => Tier::T2,
        admin::Tier::T3 => Tier::T3,
        admin::Tier::T4 => Tier::T4,
        admin::Tier::T5 => Tier::T5,
    }
}

/// The page size that the request asks for.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::invalid(
            "limit",
            format!("limit is 1 to {PAGE_MAX}"),
        )),
    }
}

/// The query for a page of a list ordered by id, newest first. It asks for one entry more, which tells whether another
/// page follows.
pub(super) fn newest(limit: u32, after: Option<&str>) -> Result<Page, ApiError> {
    let before = after.map(str::parse).transpose();
    let before =
        before.map_err(|_| ApiError::invalid("after", "after is the `next` of the part before"))?;
    Ok(Page {
        before,
        limit: limit + 1,
    })
}

/// Makes a page of up to `limit + 1` entries that were found.
pub(super) fn page<T, A>(
    mut found: Vec<T>,
    limit: u32,
    place: impl Fn(&T) -> String,
    show: impl FnMut(&T) -> A,
) -> admin::Page<A> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = found.len() > limit;
    found.truncate(limit);
    admin::Page {
        next: found.last().filter(|_| has_more).map(place),
        data: found.iter().map(show).collect(),
        has_more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_what_is_written_down() {
        let check = |at: &str, written: &str| assert_eq!(time(at.parse().unwrap()).0, written);
        check("2026-11-23T01:14:47.260478893Z", "2026-11-23T01:14:47.26Z");
        check("2026-11-23T01:14:47.000999Z", "2026-11-23T01:14:47Z");
        check("2026-11-23T01:14:47Z", "2026-11-23T01:14:47Z");
    }
}

//! GCRA as arithmetic on the used part of a minute's quota.
//!
//! The bucket is a minute deep. A unit takes 60 s ÷ limit of it, and it refills as time passes. Costs are in
//! nanoseconds and clocks in microseconds, all integers below 2^53, so that the store's script, whose numbers are
//! doubles, computes the same answers (`limits/store/limits.lua`).

use std::time::Duration;

use super::quota::Gauge;

pub(super) const MINUTE_NS: u64 = 60_000_000_000;
/// The deepest debt, in nanoseconds: a hundred days.
const LEVEL_NS_MAX: u64 = 100 * 86_400 * 1_000_000_000;

/// The used quota, as the time until the bucket is full again, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(pub(super) u64);

impl Level {
    pub(super) fn drained(self, passed_us: u64) -> Self {
        Level(self.0.saturating_sub(passed_us.saturating_mul(1000)))
    }

    /// The time until `cost_ns` is available. A cost of more than a minute waits for a full bucket.
    pub(super) fn wait_ns(self, cost_ns: u64) -> u64 {
        (self.0 + cost_ns.min(MINUTE_NS)).saturating_sub(MINUTE_NS)
    }

    pub(super) fn take(&mut self, cost_ns: u64) {
        self.0 = (self.0 + cost_ns).min(LEVEL_NS_MAX);
    }

    /// Gives back part of an earlier cost. As time passes the bucket refills with part of that cost anyway: no more is
    /// given back than the part that hasn't, or it would free what other requests have taken meanwhile.
    pub(super) fn give_back(&mut self, back_ns: u64, taken_ns: u64, passed_us: u64) {
        let left = Level(taken_ns).drained(passed_us).0;
        self.0 = self.0.saturating_sub(back_ns.min(left));
    }

    pub(super) fn gauge(self, limit: u64) -> Gauge {
        let free = u128::from(MINUTE_NS.saturating_sub(self.0));
        let remaining = free * u128::from(limit) / u128::from(MINUTE_NS);
        Gauge {
            limit,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            reset: Duration::from_nanos(self.0),
        }
    }
}

/// The cost of `units`, as the time until they have refilled. Rounded down: a whole limit that is taken unit by unit
/// must fit into a minute. With a limit of 0, one unit is admitted in a hundred days.
pub(super) fn cost_ns(units: u64, limit: u64) -> u64 {
    let exact = match limit {
        0 => u128::from(LEVEL_NS_MAX),
        limit => u128::from(units) * u128::from(MINUTE_NS) / u128::from(limit),
    };
    u64::try_from(exact).map_or(LEVEL_NS_MAX, |cost| cost.min(LEVEL_NS_MAX))
}

/// A wait as a duration in whole microseconds, rounded up so that the wait is long enough.
pub(super) fn wait(ns: u64) -> Duration {
    Duration::from_micros(ns.div_ceil(1000))
}

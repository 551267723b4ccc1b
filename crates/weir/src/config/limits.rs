//! `[limits]`: limits of keys and of tiers, and where they are counted.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_accounts::{Nanos, Quotas, Tier};
use weir_gateway::TierRule;

use super::types::{STORES, Store, parsed, place_expected, tier_schema};

const REQUESTS_MAX: u32 = 1_000_000;
const TOKENS_MAX: u64 = 1_000_000_000_000;
/// A hundred million dollars.
const TOP_UP_MAX: u64 = 1_000_000_000_000;

/// Limits of keys and of tiers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Limits {
    /// Requests per minute of a key that has no such limit of its own. Absent: no limit.
    #[schemars(range(min = 1, max = REQUESTS_MAX), extend("x-live" = true))]
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens per minute (prompt and answer) of a key that has no such limit of its own. Absent: no limit.
    #[schemars(range(min = 1, max = TOKENS_MAX), extend("x-live" = true))]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests that a key may have open at once, if it has no such limit of its own. Absent: no limit.
    #[schemars(range(min = 1, max = REQUESTS_MAX), extend("x-live" = true))]
    pub(crate) concurrent_requests: Option<u32>,
    /// Where the rate limits are counted: in this process (`memory`), or in a Valkey or Redis (not a cluster) that
    /// several nodes share, as `redis://user:password@host:6379/0`; `rediss://` is with TLS.
    #[schemars(
        with = "String",
        extend(
            "x-secret" = true,
            "x-expected" = place_expected("memory", &STORES)
        )
    )]
    pub(crate) store: Store,
    /// Longest time that a request waits for the shared store. After a timeout the store counts as unreachable until it
    /// answers again.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) store_timeout_ms: u64,
    /// The policy while the shared store is unreachable: `local`, each node limits on its own; `open`, nothing is
    /// limited; `closed`, requests are refused with 503.
    pub(crate) on_failure: OnFailure,
    pub(crate) tiers: Vec<TierSection>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrent_requests: None,
            store: Store::Memory,
            store_timeout_ms: 100,
            on_failure: OnFailure::Local,
            tiers: Vec::new(),
        }
    }
}

/// The policy for requests while the shared store is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    Local,
    Open,
    Closed,
}

/// A tier, from low to high.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-live" = true))]
pub(crate) struct TierSection {
    /// The tier whose limits these are. Required. Without any tiers, accounts have no limits by default.
    #[schemars(extend("x-needs" = "T1, T2, T3, T4 or T5"))]
    #[serde(deserialize_with = "parsed")]
    #[schemars(schema_with = "tier_schema")]
    pub(crate) name: Tier,
    /// Least top-up of the tier, in 0.0001 USD. What counts is the largest sum that the account has paid in within one
    /// month, of the current month and the two before. Absent: 0, 500001 (more than $50), 5000000 ($500), 30000000
    /// ($3,000) and 100000000 ($10,000) for T1 to T5.
    #[schemars(range(max = TOP_UP_MAX))]
    pub(crate) top_up: Option<u64>,
    /// Requests per minute of an account in this tier, for each model. Absent: no limit.
    #[schemars(range(min = 1, max = REQUESTS_MAX))]
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens per minute (prompt and answer) of an account in this tier, for each model. Absent: no limit.
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Requests that an account in this tier may have open at once, for each model. Absent: no limit.
    #[schemars(range(min = 1, max = REQUESTS_MAX))]
    pub(crate) concurrent_requests: Option<u32>,
    /// Share of an embedded engine that an account in this tier gets while other accounts wait too: an account with
    /// weight 3 gets three times as much as one with weight 1. An account that is alone gets the whole engine.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) weight: u32,
}

impl Default for TierSection {
    fn default() -> Self {
        TierSection {
            name: Tier::T1,
            top_up: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrent_requests: None,
            weight: 1,
        }
    }
}

/// Defaults of the top-ups that lift an account into each tier, in the order of the tiers, in 0.0001 USD.
const TOP_UPS: [u64; 5] = [0, 500_001, 5_000_000, 30_000_000, 100_000_000];
/// Prices and top-ups are in 0.0001 USD: 10^-4 USD = 100,000 nano-USD.
const NANOS_PER_UNIT: i64 = 100_000;

impl Limits {
    /// Limits of a key that has none of its own.
    pub(crate) fn key(&self) -> Quotas {
        Quotas {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrent_requests: self.concurrent_requests,
        }
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.store_timeout_ms)
    }

    pub(crate) fn tier_rules(&self) -> Vec<TierRule> {
        self.tiers.iter().map(TierSection::rule).collect()
    }

    /// Tiers must be higher from one to the next, and need larger top-ups: they would be ambiguous otherwise.
    pub(super) fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        for (index, pair) in self.tiers.windows(2).enumerate() {
            let [lower, higher] = pair else { continue };
            let message = if higher.name <= lower.name {
                format!(
                    "tiers go from low to high: {} after {}",
                    higher.name, lower.name
                )
            } else if higher.top_up() <= lower.top_up() {
                let (higher, lower) = (higher.name, lower.name);
                format!("the top_up of {higher} must be more than that of {lower}")
            } else {
                continue;
            };
            problem(&format!("limits.tiers[{}]", index + 1), message);
        }
    }
}

impl TierSection {
    fn top_up(&self) -> u64 {
        let usual = Tier::ALL.into_iter().zip(TOP_UPS);
        let mut usual = usual.filter(|(tier, _)| *tier == self.name);
        let usual = usual.next().map_or(0, |(_, top_up)| top_up);
        self.top_up.unwrap_or(usual)
    }

    fn rule(&self) -> TierRule {
        let units = i64::try_from(self.top_up()).expect("the key's range fits");
        TierRule {
            tier: self.name,
            top_up: Nanos::new(units * NANOS_PER_UNIT),
            quotas: Quotas {
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
                concurrent_requests: self.concurrent_requests,
            },
            weight: NonZeroU32::new(self.weight).expect("the key's range has no 0"),
        }
    }
}

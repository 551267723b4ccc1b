//! `[limits]`: limits of keys and of tiers, and where they are counted.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use weir_accounts::{Nanos, Quotas, Tier};
use weir_gateway::TierRule;
use weir_gateway::limits::{StoreFailure, is_store_address};

use super::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Limits of a key that has none of its own.
    pub(crate) key: Quotas,
    pub(crate) tiers: Vec<TierRule>,
    /// The shared store; `None` if this process counts alone.
    pub(crate) store: Option<StoreUrl>,
    pub(crate) store_timeout: Duration,
    pub(crate) on_failure: StoreFailure,
}

/// The address of a store, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreUrl(…)")
    }
}

/// Defaults of the top-ups that lift an account into each tier, in the order of the tiers, in 0.0001 USD.
const TOP_UPS: [u64; 5] = [0, 500_001, 5_000_000, 30_000_000, 100_000_000];
/// Prices and top-ups are in 0.0001 USD: 10^-4 USD = 100,000 nano-USD.
const NANOS_PER_UNIT: i64 = 100_000;

impl Reader<'_> {
    pub(super) fn limits(&mut self) -> Limits {
        Limits {
            key: self.quotas("limits"),
            tiers: self.tiers(),
            store: self.store(),
            store_timeout: Duration::from_millis(
                self.whole("limits.store_timeout_ms")
                    .expect("it has a default"),
            ),
            on_failure: match self.text("limits.on_failure").as_deref() {
                Some("open") => StoreFailure::Open,
                Some("closed") => StoreFailure::Closed,
                _ => StoreFailure::Local,
            },
        }
    }

    fn quotas(&self, at: &str) -> Quotas {
        Quotas {
            requests_per_minute: self.narrow(&format!("{at}.requests_per_minute")),
            tokens_per_minute: self.whole(&format!("{at}.tokens_per_minute")),
            concurrent_requests: self.narrow(&format!("{at}.concurrent_requests")),
        }
    }

    fn store(&mut self) -> Option<StoreUrl> {
        let text = self.text("limits.store").filter(|text| text != "memory")?;
        if !is_store_address(&text) {
            let message = "limits.store is no address of a store, as redis://host:6379/0";
            self.problem("limits.store", message.to_owned());
        }
        Some(StoreUrl(text))
    }

    fn tiers(&mut self) -> Vec<TierRule> {
        let mut tiers: Vec<TierRule> = Vec::new();
        for index in 0..self.settings.count("limits.tiers") {
            let at = format!("limits.tiers[{index}]");
            if self.required(&at, "name", "T1, T2, T3, T4 or T5").is_none() {
                continue;
            }
            let name = self.text(&format!("{at}.name")).unwrap_or_default();
            let tier: Tier = name.parse().expect("one of the key's choices");
            let usual = Tier::ALL.into_iter().zip(TOP_UPS);
            let usual = usual.filter(|(other, _)| *other == tier);
            let top_up = self.whole(&format!("{at}.top_up"));
            let top_up = top_up.or(usual.map(|(_, top_up)| top_up).next());
            let units = i64::try_from(top_up.unwrap_or(0)).expect("the key's range fits");
            tiers.push(TierRule {
                tier,
                top_up: Nanos::new(units * NANOS_PER_UNIT),
                quotas: self.quotas(&at),
                weight: self
                    .narrow(&format!("{at}.weight"))
                    .and_then(NonZeroU32::new)
                    .expect("the key has a default, and its range fits"),
            });
            if let Some(message) = disorder(&tiers) {
                self.entry_problem(&at, message);
            }
        }
        tiers
    }
}

/// The error if the last tier isn't higher than the one before, or doesn't need a larger top-up: tiers would be ambiguous.
fn disorder(tiers: &[TierRule]) -> Option<String> {
    let [.., before, last] = tiers else {
        return None;
    };
    let (lower, higher) = (before.tier, last.tier);
    if higher <= lower {
        return Some(format!("tiers go from low to high: {higher} after {lower}"));
    }
    (last.top_up <= before.top_up)
        .then(|| format!("the top_up of {higher} must be more than that of {lower}"))
}

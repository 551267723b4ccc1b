//! An account's limits for each model: those agreed with it, or else those of its tier, which follows from its top-ups.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{AccountId, Accounts, Caller, Nanos, Quotas, Tier};

/// A tier: the condition for an account to be in it, and the limits of its accounts for each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRule {
    pub tier: Tier,
    /// An account is in this tier if it topped up at least this amount within one calendar month, the current or one of
    /// the two before.
    pub top_up: Nanos,
    pub quotas: Quotas,
    /// The share of an engine that the tier's accounts get in competition with others, relative to a weight of 1.
    pub weight: NonZeroU32,
}

/// How long a looked-up sum of top-ups is used before it is read from the database again.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Number of accounts whose top-ups are cached.
const KNOWN_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Tiers {
    /// Sorted by top-up, the lowest first.
    rules: Vec<TierRule>,
    /// Shared with the tiers that replace these.
    known: Arc<Mutex<HashMap<AccountId, Known>>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    top_up: Nanos,
    at: Instant,
}

impl Tiers {
    pub(crate) fn new(rules: Vec<TierRule>) -> Self {
        let none = Tiers {
            rules: Vec::new(),
            known: Arc::default(),
        };
        none.with_rules(rules)
    }

    /// Tiers with other rules. What is known of accounts' top-ups stays.
    pub(crate) fn with_rules(&self, mut rules: Vec<TierRule>) -> Self {
        rules.sort_by_key(|rule| rule.top_up);
        Tiers {
            rules,
            known: Arc::clone(&self.known),
        }
    }

    /// Looks up the account's top-ups, unless they are cached or its limits don't depend on them.
    pub(crate) async fn look_up(&self, caller: &Caller, accounts: &Accounts, now: Timestamp) {
        if self.rules.is_empty() || caller.tier.is_some() || self.is_known(&caller.account) {
            return;
        }
        match accounts.highest_monthly_top_up(&caller.account, now).await {
            Ok(top_up) => self.learn(&caller.account, top_up),
            Err(error) => {
                tracing::warn!(%error, account = %caller.account, "the tier of an account can't be looked up");
            }
        }
    }

    /// The account's limits for each model. Limits that were agreed with the account take precedence over its tier's.
    /// Without a previous [`Tiers::look_up`] the account counts as having no top-ups.
    pub(crate) fn quotas(&self, caller: &Caller) -> Quotas {
        let by_tier = self.rule(caller).map(|rule| rule.quotas);
        or(
            caller.account_limits.unwrap_or_default(),
            by_tier.unwrap_or_default(),
        )
    }

    /// The account's weight in the engine's scheduler. Without a previous [`Tiers::look_up`] the account counts as
    /// having no top-ups.
    pub(crate) fn weight(&self, caller: &Caller) -> NonZeroU32 {
        self.rule(caller)
            .map_or(NonZeroU32::MIN, |rule| rule.weight)
    }

    /// The highest tier with a rule that the account has reached.
    fn rule(&self, caller: &Caller) -> Option<&TierRule> {
        let reached = |rule: &&TierRule| match caller.tier {
            Some(tier) => rule.tier <= tier,
            None => rule.top_up <= self.top_up(&caller.account),
        };
        self.rules.iter().rfind(reached)
    }

    /// The account's cached top-ups; zero if they aren't cached.
    fn top_up(&self, account: &AccountId) -> Nanos {
        self.lock()
            .get(account)
            .map_or(Nanos::ZERO, |known| known.top_up)
    }

    /// Whether the account's top-ups are cached. The first call after they have become stale answers no, so that its
    /// caller renews them; later callers use the stale value meanwhile.
    fn is_known(&self, account: &AccountId) -> bool {
        let now = Instant::now();
        let mut known = self.lock();
        let Some(known) = known.get_mut(account) else {
            return false;
        };
        let fresh = now.duration_since(known.at) < KNOWN_FOR;
        if !fresh {
            known.at = now;
        }
        fresh
    }

    fn learn(&self, account: &AccountId, top_up: Nanos) {
        let at = Instant::now();
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| at.duration_since(known.at) < KNOWN_FOR);
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(account.clone(), Known { top_up, at });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, Known>> {
        // Nothing panics while the lock is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chooses for each limit the first of the two that is set.
pub(crate) fn or(first: Quotas, second: Quotas) -> Quotas {
    first.or(second)
}

#[cfg(test)]
mod tests {
    use weir_accounts::KeyRole;

    use super::*;

    fn requests(limit: u32) -> Quotas {
        Quotas {
            requests_per_minute: Some(limit),
            ..Quotas::default()
        }
    }

    fn rule(tier: Tier, usd: i64, limit: u32) -> TierRule {
        TierRule {
            tier,
            top_up: Nanos::from_usd(usd).unwrap(),
            quotas: requests(limit),
            weight: NonZeroU32::new(limit).expect("not zero"),
        }
    }

    fn caller() -> Caller {
        Caller {
            account: "a".to_owned().into(),
            key: "k".to_owned().into(),
            models: None,
            role: KeyRole::Inference,
            limits: Quotas::default(),
            account_limits: None,
            model_limits: Arc::default(),
            tier: None,
            suspended: false,
            capped: false,
            available: Nanos::ZERO,
            held: Nanos::ZERO,
        }
    }

    #[test]
    fn the_highest_tier_that_is_reached_counts() {
        let tiers = Tiers::new(vec![rule(Tier::T3, 500, 3), rule(Tier::T1, 10, 1)]);
        let check = |usd, caller: Caller, expected: Option<u32>| {
            tiers.learn(&caller.account, Nanos::from_usd(usd).unwrap());
            let quotas = tiers.quotas(&caller);
            assert_eq!(quotas.requests_per_minute, expected, "{usd} {caller:?}");
            if caller.account_limits.is_none() {
                // Limits that were agreed with an account don't change its weight, which is the tier's; here both are
                // the same number.
                assert_eq!(tiers.weight(&caller).get(), expected.unwrap_or(1));
            }
        };
        let told = |tier| Caller {
            tier: Some(tier),
            ..caller()
        };
        check(9, caller(), None);
        check(10, caller(), Some(1));
        check(499, caller(), Some(1));
        check(500, caller(), Some(3));
        check(500, told(Tier::T1), Some(1));
        check(0, told(Tier::T2), Some(1));
        check(0, told(Tier::T5), Some(3));
        let agreed = Caller {
            account_limits: Some(requests(7)),
            ..caller()
        };
        check(500, agreed, Some(7));
        let other_limit = Quotas {
            concurrent_requests: Some(2),
            ..Quotas::default()
        };
        let beside = Caller {
            account_limits: Some(other_limit),
            ..caller()
        };
        check(500, beside.clone(), Some(3));
        assert_eq!(tiers.quotas(&beside).concurrent_requests, Some(2));
        // The limits agreed for a model come first, then those agreed for every model, then the tier's.
        let of_model = [("m".to_owned(), requests(9))].into_iter().collect();
        let agreed = Caller {
            model_limits: Arc::new(of_model),
            ..beside
        };
        check(500, agreed.clone(), Some(3));
        check(500, agreed.clone().asking_for("n"), Some(3));
        let agreed = agreed.asking_for("m");
        check(500, agreed.clone(), Some(9));
        assert_eq!(tiers.quotas(&agreed).concurrent_requests, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tier_is_looked_up_once_a_minute_and_by_one() {
        let tiers = Tiers::new(vec![rule(Tier::T1, 0, 1)]);
        let account = caller().account;
        assert!(!tiers.is_known(&account));
        tiers.learn(&account, Nanos::ZERO);
        assert!(tiers.is_known(&account));
        tokio::time::advance(KNOWN_FOR).await;
        assert!(!tiers.is_known(&account));
        assert!(tiers.is_known(&account), "the others go on");
        for i in 0..=KNOWN_MAX {
            tiers.learn(&format!("b{i}").into(), Nanos::ZERO);
        }
        let remembered = tiers.lock().len();
        assert!(remembered <= KNOWN_MAX, "{remembered}");
    }
}

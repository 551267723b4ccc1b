//! What an account may use of a model: by its tier, which its top-ups decide, or as was agreed with it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{AccountId, Accounts, Caller, Nanos, Quotas, Tier};

/// Who is in a tier, and what its accounts may use of each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierRule {
    pub tier: Tier,
    /// Who paid in so much within a month, of the current one and the two before, is in it.
    pub top_up: Nanos,
    pub quotas: Quotas,
    /// What part of an engine its accounts have beside others.
    pub weight: NonZeroU32,
}

/// How long an account's tier is believed.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Accounts whose tier is remembered.
const KNOWN_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Tiers {
    /// The lowest first.
    rules: Vec<TierRule>,
    known: Mutex<HashMap<AccountId, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    top_up: Nanos,
    at: Instant,
}

impl Tiers {
    pub(crate) fn new(mut rules: Vec<TierRule>) -> Self {
        rules.sort_by_key(|rule| rule.top_up);
        Tiers {
            rules,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// Finds out what an account has paid in, unless that is known or nothing depends on it.
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

    /// What the caller's account may use of each model, as far as it was looked up. What was agreed with
    /// the account goes before its tier's.
    pub(crate) fn quotas(&self, caller: &Caller) -> Quotas {
        let by_tier = self.rule(caller).map(|rule| rule.quotas);
        or(
            caller.account_limits.unwrap_or_default(),
            by_tier.unwrap_or_default(),
        )
    }

    /// What the caller's account weighs beside others on an engine, as far as it was looked up.
    pub(crate) fn weight(&self, caller: &Caller) -> NonZeroU32 {
        self.rule(caller)
            .map_or(NonZeroU32::MIN, |rule| rule.weight)
    }

    /// The highest tier that it has reached and that has a rule.
    fn rule(&self, caller: &Caller) -> Option<&TierRule> {
        let reached = |rule: &&TierRule| match caller.tier {
            Some(tier) => rule.tier <= tier,
            None => rule.top_up <= self.top_up(&caller.account),
        };
        self.rules.iter().rfind(reached)
    }

    /// An account of which nothing is known has paid in nothing.
    fn top_up(&self, account: &AccountId) -> Nanos {
        self.lock()
            .get(account)
            .map_or(Nanos::ZERO, |known| known.top_up)
    }

    /// Old knowledge is renewed by the first who finds it old; the others go on with it.
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

/// Limit by limit, the first that there is.
pub(crate) fn or(first: Quotas, second: Quotas) -> Quotas {
    first.or(second)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
                // What was agreed about limits doesn't change the weight, which is the tier's: here, the same number.
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
        // For a model: what was agreed for it, then for every model, then the tier's.
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

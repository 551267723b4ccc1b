//! Callers: whose request it is, by a key that is looked up for each request.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq;

use crate::clock;
use crate::db::{Readers, StoreError, values};
use crate::ids::{AccountId, KeyId};
use crate::key::cap::SpendCaps;
use crate::key::{KeyRole, columns, hash, parse, read};
use crate::ledger::notices::{Notices, UsedSecret};
use crate::money::Nanos;
use crate::quotas::by_model::ModelQuotas;
use crate::quotas::{self, Quotas, Tier};

/// How often the use of a key is written down, at most.
const USED_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// The caller of a request: an account, by one of its keys. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: AccountId,
    pub key: KeyId,
    /// The only models that the key may use; `None` is every model.
    pub models: Option<Arc<[String]>>,
    pub role: KeyRole,
    /// The key's own limits.
    pub limits: Quotas,
    /// The account's limits, where they aren't those of its tier.
    pub account_limits: Option<Quotas>,
    /// The account's limits for single models.
    pub model_limits: Arc<ModelQuotas>,
    /// The tier that was set for the account; `None` if its top-ups decide.
    pub tier: Option<Tier>,
    /// Whether the account is suspended: its requests are refused.
    pub suspended: bool,
    /// Whether the key has a spend cap.
    pub capped: bool,
    /// The amount that a new request could hold when the key was looked up. Only the hold itself decides.
    pub available: Nanos,
    /// The amount that open requests held then.
    pub held: Nanos,
}

impl Caller {
    pub fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }

    /// The caller with its limits for this model: limit by limit, those set for the model go before those for every
    /// model.
    #[must_use]
    pub fn asking_for(self, model: &str) -> Self {
        let agreed = self.model_limits.of(model);
        let limits = agreed.or(self.account_limits.unwrap_or_default());
        Caller {
            account_limits: (limits != Quotas::default()).then_some(limits),
            ..self
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// Malformed, unknown, revoked or expired: callers are not told which.
    #[error("the key is not valid")]
    Rejected,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The caller that presents this key. Reads the database each time, so that a revoked key is refused at once.
pub(crate) async fn authenticate(
    readers: &Readers,
    notices: &Notices,
    presented: &str,
    now: Timestamp,
) -> Result<Caller, KeyError> {
    let (public, secret) = parse(presented).ok_or(KeyError::Rejected)?;
    let presented = hash(secret);
    let row = readers
        .row(
            concat!(
                "SELECT ",
                columns!(),
                ", secret_hash, previous_hash, account.requests_per_minute, account.tokens_per_minute,
                    account.concurrent_requests, account.tier, account.suspended_at, account.model_limits,
                    secret_used_at, balance.posted + balance.credit_limit - balance.held, balance.held,
                    (SELECT newest FROM clock)
                 FROM api_key JOIN account ON account.id = api_key.account JOIN balance ON balance.account = account.id
                 WHERE api_key.id = $1"
            ),
            values![public],
        )
        .await?;
    // A key that the database doesn't know, or that has no previous secret, is compared as well, so that timing tells
    // nothing. No secret is known whose hash is zero.
    let stored = |column| match &row {
        Some(row) => Ok(row.bytes_or_null(column)?.unwrap_or_else(|| vec![0; 32])),
        None => Ok::<_, StoreError>(vec![0; 32]),
    };
    let current = stored(17)?.ct_eq(&presented);
    let previous = stored(18)?.ct_eq(&presented);
    let row = row
        .filter(|_| bool::from(current | previous))
        .ok_or(KeyError::Rejected)?;
    let key = read(&row)?;
    let lapse = clock::lapse_by(row.time(28)?, now);
    let ended = |end: Option<Timestamp>| end.is_some_and(|end| end <= lapse);
    let outdated = !bool::from(current) && ended(key.previous_until);
    if outdated || key.revoked_at.is_some() || ended(key.expires_at) {
        return Err(KeyError::Rejected);
    }
    let secret = UsedSecret {
        at: now,
        current: bool::from(current),
    };
    let first = secret.current && row.integer_or_null(25)?.is_none();
    let stale = key
        .last_used_at
        .is_none_or(|last| now.duration_since(last).abs() >= USED_EVERY);
    if first || stale {
        notices.used(&key.id, secret);
    }
    let account_limits = Quotas::read(&row, 19)?;
    Ok(Caller {
        capped: key.caps != SpendCaps::default(),
        account: key.account,
        key: key.id,
        models: key.models.map(Arc::from),
        role: key.role,
        limits: key.limits,
        account_limits: (account_limits != Quotas::default()).then_some(account_limits),
        model_limits: Arc::new(ModelQuotas::read(&row, 24)?),
        tier: quotas::tier(&row, 22)?,
        suspended: row.integer_or_null(23)?.is_some(),
        available: row.nanos(26)?,
        held: row.nanos(27)?,
    })
}

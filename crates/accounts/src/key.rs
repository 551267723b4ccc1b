//! API keys: `sk_<public>_<secret>`. Only a hash of the secret is stored.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::account::{AccountId, AdminError};
use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::quotas::{self, Quotas, Tier};
use crate::writer::{Operation, Written};

const PREFIX: &str = "sk";
const PUBLIC_LEN: usize = 12;
/// 43 characters of 62 are 256 bits.
const SECRET_LEN: usize = 43;
/// A longer part is not read.
const PART_MAX: usize = 64;
const NAME_MAX: usize = 64;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret that can't be displayed, logged or serialized.
pub struct Secret(String);

impl Secret {
    /// The text itself: to show it once to whoever made the key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The public part of a key: what it's called in lists, logs and usage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for KeyId {
    fn from(id: String) -> Self {
        KeyId(id.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A key that was just made; its secret is never seen again.
#[derive(Debug)]
pub struct NewKey {
    pub id: KeyId,
    /// The whole key, `sk_<public>_<secret>`.
    pub secret: Secret,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyRole {
    /// Uses models, and administers nothing. The others administer, and use no models.
    #[default]
    Inference,
    /// May do everything to all accounts and keys.
    Admin,
    /// May read everything, and move money.
    Billing,
    /// May read everything.
    Viewer,
}

impl KeyRole {
    pub const ALL: [KeyRole; 4] = [
        KeyRole::Inference,
        KeyRole::Admin,
        KeyRole::Billing,
        KeyRole::Viewer,
    ];

    pub fn name(self) -> &'static str {
        match self {
            KeyRole::Inference => "inference",
            KeyRole::Admin => "admin",
            KeyRole::Billing => "billing",
            KeyRole::Viewer => "viewer",
        }
    }
}

/// What a key may do, beyond being its account's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    pub name: Option<String>,
    pub expires_at: Option<Timestamp>,
    /// `None` is every model.
    pub models: Option<Vec<String>>,
    pub role: KeyRole,
    /// The key's own limits, beside those of its account.
    pub limits: Quotas,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub id: KeyId,
    pub account: AccountId,
    pub name: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub models: Option<Vec<String>>,
    pub role: KeyRole,
    pub limits: Quotas,
}

/// Who asks: an account, by one of its keys. Cheap to clone.
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
    /// The account's tier, where its top-ups don't decide.
    pub tier: Option<Tier>,
    /// Whether the account is suspended: its requests are refused.
    pub suspended: bool,
}

impl Caller {
    pub fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
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

/// What [`read`] reads.
macro_rules! columns {
    () => {
        "api_key.id, api_key.account, api_key.name, api_key.created_at, api_key.expires_at, api_key.revoked_at,
         api_key.models, api_key.role, api_key.requests_per_minute, api_key.tokens_per_minute,
         api_key.concurrent_requests"
    };
}

/// `len` characters of base62 from the operating system's random numbers.
pub(crate) fn random(len: usize) -> String {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).expect("the operating system has random numbers");
        // Six bits are a character, and the two values beyond the alphabet are thrown away.
        let characters = bytes
            .iter()
            .filter_map(|byte| BASE62.get(usize::from(byte & 63)));
        let missing = len.saturating_sub(text.len());
        text.extend(characters.take(missing).map(|&byte| char::from(byte)));
    }
    text
}

/// The parts of `sk_<public>_<secret>`.
fn parse(presented: &str) -> Option<(&str, &str)> {
    let (public, secret) = presented
        .strip_prefix(PREFIX)?
        .strip_prefix('_')?
        .split_once('_')?;
    let good = |part: &str| {
        (1..=PART_MAX).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    (good(public) && good(secret)).then_some((public, secret))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[derive(Debug)]
pub(crate) struct AddKey {
    account: AccountId,
    options: KeyOptions,
    id: KeyId,
    secret: Secret,
    now: Timestamp,
}

impl AddKey {
    pub(crate) fn new(
        account: &AccountId,
        options: KeyOptions,
        now: Timestamp,
    ) -> Result<Self, AdminError> {
        let plain = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
        if !options
            .name
            .as_ref()
            .is_none_or(|name| plain(name) && name.len() <= NAME_MAX)
        {
            let message =
                format!("a key's name has 1 to {NAME_MAX} bytes and no control characters");
            return Err(AdminError::Invalid(message));
        }
        if !options.models.iter().flatten().all(plain) {
            return Err(AdminError::Invalid(
                "a model's id is not empty and has no control characters".to_owned(),
            ));
        }
        options.limits.check()?;
        let secret = Secret(random(SECRET_LEN));
        Ok(AddKey {
            account: account.clone(),
            options,
            id: KeyId::from(random(PUBLIC_LEN)),
            secret,
            now,
        })
    }
}

impl Operation for AddKey {
    type Done = ();
    type Refused = AdminError;
    type Answer = Result<NewKey, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> Written<(), AdminError> {
        let account = self.account.as_str();
        let known = connection
            .row("SELECT 1 FROM account WHERE id = $1", values![account])
            .await?;
        if known.is_none() {
            return Ok(Err(AdminError::NotFound {
                what: "account",
                name: account.to_owned(),
            }));
        }
        let models = self.options.models.as_ref().map(|models| models.join("\n"));
        let [requests, tokens, concurrent] = self.options.limits.columns();
        connection
            .execute(
                "INSERT INTO api_key (id, account, name, secret_hash, models, created_at, expires_at, role,
                     requests_per_minute, tokens_per_minute, concurrent_requests)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                values![
                    self.id.as_str(),
                    account,
                    self.options.name.as_deref(),
                    hash(self.secret.expose()).as_slice(),
                    models.as_deref(),
                    self.now,
                    self.options.expires_at,
                    self.options.role.name(),
                    requests,
                    tokens,
                    concurrent,
                ],
            )
            .await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: Written<(), AdminError>) -> Result<NewKey, AdminError> {
        outcome??;
        let secret = Secret(format!("{PREFIX}_{}_{}", self.id, self.secret.expose()));
        Ok(NewKey {
            id: self.id,
            secret,
        })
    }
}

#[derive(Debug)]
pub(crate) struct RevokeKey {
    id: String,
    now: Timestamp,
}

impl RevokeKey {
    /// Whoever hands over a whole key means its public part; the secret goes nowhere, not even into an
    /// error.
    pub(crate) fn new(id: &str, now: Timestamp) -> Self {
        let public = match id
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
        {
            Some(rest) => rest.split('_').next().unwrap_or(rest),
            None => id,
        };
        RevokeKey {
            id: public.to_owned(),
            now,
        }
    }
}

impl Operation for RevokeKey {
    type Done = KeyInfo;
    type Refused = AdminError;
    type Answer = Result<KeyInfo, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> Written<KeyInfo, AdminError> {
        let row = connection
            .row(
                concat!(
                    "UPDATE api_key SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1 RETURNING ",
                    columns!()
                ),
                values![self.id.as_str(), self.now],
            )
            .await?;
        match row {
            Some(row) => Ok(Ok(read(&row)?)),
            None => Ok(Err(AdminError::NotFound {
                what: "key",
                name: self.id.clone(),
            })),
        }
    }

    fn answer(self, outcome: Written<KeyInfo, AdminError>) -> Result<KeyInfo, AdminError> {
        outcome?
    }
}

/// The keys of an account, oldest first.
pub(crate) async fn list(
    readers: &Readers,
    account: &AccountId,
) -> Result<Vec<KeyInfo>, StoreError> {
    let rows = readers
        .rows(
            concat!(
                "SELECT ",
                columns!(),
                " FROM api_key WHERE account = $1 ORDER BY created_at, id"
            ),
            values![account.as_str()],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// Who presents this key. The database is asked each time, so that a revoked key is refused at once.
pub(crate) async fn authenticate(
    readers: &Readers,
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
                ", secret_hash, account.requests_per_minute, account.tokens_per_minute, account.concurrent_requests,
                    account.tier, account.suspended_at
                 FROM api_key JOIN account ON account.id = api_key.account WHERE api_key.id = $1"
            ),
            values![public],
        )
        .await?;
    // An unknown key is compared, too, so that it costs the same work as a known one.
    let stored = row
        .as_ref()
        .map_or_else(|| Ok(vec![0; 32]), |row| row.bytes(11))?;
    let same = bool::from(stored.ct_eq(&presented));
    let row = row.filter(|_| same).ok_or(KeyError::Rejected)?;
    let key = read(&row)?;
    if key.revoked_at.is_some() || key.expires_at.is_some_and(|end| end <= now) {
        return Err(KeyError::Rejected);
    }
    let account_limits = Quotas::read(&row, 12)?;
    Ok(Caller {
        account: key.account,
        key: key.id,
        models: key.models.map(Arc::from),
        role: key.role,
        limits: key.limits,
        account_limits: (account_limits != Quotas::default()).then_some(account_limits),
        tier: quotas::tier(&row, 15)?,
        suspended: row.integer_or_null(16)?.is_some(),
    })
}

fn read(row: &Row) -> Result<KeyInfo, StoreError> {
    let models = row.text_or_null(6)?;
    let role = row.text(7)?;
    Ok(KeyInfo {
        id: KeyId::from(row.text(0)?),
        account: AccountId::from(row.text(1)?),
        name: row.text_or_null(2)?,
        created_at: row.time(3)?,
        expires_at: row.time_or_null(4)?,
        revoked_at: row.time_or_null(5)?,
        models: models.map(|models| models.lines().map(str::to_owned).collect()),
        role: KeyRole::ALL
            .into_iter()
            .find(|known| known.name() == role)
            .ok_or_else(|| StoreError::contradiction(format!("{role} is no role of keys")))?,
        limits: Quotas::read(row, 8)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_keys_are_read() {
        let check =
            |text: &str, parts: Option<(&str, &str)>| assert_eq!(parse(text), parts, "{text:?}");
        check("sk_abc_DEF123", Some(("abc", "DEF123")));
        for text in [
            "",
            "sk",
            "sk_",
            "sk__",
            "sk_abc",
            "sk_abc_",
            "sk__abc",
            "SK_abc_def",
            "pk_abc_def",
            "sk_abc_def_",
            "sk_abc_d_f",
            " sk_abc_def",
            "sk_abc_def ",
            "sk-abc-def",
            "sk_a-c_def",
            "sk_abc_dé",
            "sk_abc_d\0f",
            "sk_a'--_def",
            "Bearer sk_abc_def",
        ] {
            check(text, None);
        }
        check(
            &format!("sk_{}_{}", "a".repeat(64), "b".repeat(64)),
            Some((&"a".repeat(64), &"b".repeat(64))),
        );
        check(&format!("sk_{}_b", "a".repeat(65)), None);
        check(&format!("sk_a_{}", "b".repeat(65)), None);
    }

    #[test]
    fn random_texts_use_the_whole_alphabet() {
        let text = random(10_000);
        assert_eq!(text.len(), 10_000);
        for letter in BASE62 {
            let seen = text.bytes().filter(|byte| byte == letter).count();
            assert!(
                (60..300).contains(&seen),
                "{} comes {seen} times",
                char::from(*letter)
            );
        }
        assert_ne!(random(SECRET_LEN), random(SECRET_LEN));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(sk_)?\\PC{0,80}(_\\PC{0,80})?") {
            if let Some((public, secret)) = parse(&text) {
                prop_assert_eq!(format!("sk_{public}_{secret}"), text);
            }
        }
    }
}

//! API keys: `sk_<public>_<secret>`. Only a hash of the secret is stored.

pub(crate) mod admin;
pub(crate) mod caller;
pub(crate) mod cap;
pub(crate) mod rotate;

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::db::{Readers, Row, StoreError, values};
use crate::error::AdminError;
use crate::expiry::Expiry;
use crate::ids::{AccountId, KeyId};
use crate::key::cap::SpendCaps;
use crate::page::PAGE_MAX;
use crate::quotas::Quotas;

const PREFIX: &str = "sk";
const PUBLIC_LEN: usize = 12;
/// 43 characters of base62 have 256 bits.
const SECRET_LEN: usize = 43;
/// The longest part of a key that is read; a longer one is refused.
const PART_MAX: usize = 64;

/// A secret that can't be displayed, logged or serialized.
pub struct Secret(String);

impl Secret {
    /// The text itself: to show it once, to the user who made the key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key that was just made; its secret is never seen again.
#[derive(Debug)]
pub struct NewKey {
    pub id: KeyId,
    /// The whole key, `sk_<public>_<secret>`.
    pub secret: Secret,
}

/// The purpose and the rights of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyRole {
    /// Uses models, and can't administer. The other roles administer, and can't use models.
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

/// The settings of a new key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOptions {
    pub name: Option<String>,
    pub expires_at: Option<Expiry>,
    /// The only models that the key may use; `None` is every model.
    pub models: Option<Vec<String>>,
    pub role: KeyRole,
    /// The key's own limits, beside those of its account.
    pub limits: Quotas,
    pub caps: SpendCaps,
    /// Makes at most one key: used again, it is refused.
    pub idempotency_key: Option<String>,
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
    pub caps: SpendCaps,
    /// Approximate: written at most once a minute, together with something else.
    pub last_used_at: Option<Timestamp>,
    pub rotated_at: Option<Timestamp>,
    /// Until when the secret before the last rotation is accepted too.
    pub previous_until: Option<Timestamp>,
}

/// The columns that [`read`] reads.
macro_rules! columns {
    () => {
        "api_key.id, api_key.account, api_key.name, api_key.created_at, api_key.expires_at, api_key.revoked_at,
         api_key.models, api_key.role, api_key.requests_per_minute, api_key.tokens_per_minute,
         api_key.concurrent_requests, api_key.cap_total, api_key.cap_month, api_key.cap_day,
         api_key.last_used_at, api_key.rotated_at, api_key.previous_until"
    };
}
pub(crate) use columns;

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

/// All keys, by the name of their account, each account's oldest first.
pub(crate) async fn all(readers: &Readers) -> Result<Vec<KeyInfo>, StoreError> {
    let rows = readers
        .rows(
            concat!(
                "SELECT ",
                columns!(),
                " FROM api_key JOIN account ON account.id = api_key.account
                 ORDER BY account.name, api_key.created_at, api_key.id"
            ),
            &[],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// Keys of an account after this one, oldest first.
pub(crate) async fn after(
    readers: &Readers,
    account: &AccountId,
    after: Option<&KeyInfo>,
    limit: u32,
) -> Result<Vec<KeyInfo>, StoreError> {
    let place = after.map_or((Timestamp::MIN, ""), |key| {
        (key.created_at, key.id.as_str())
    });
    let limit = i64::from(limit.min(PAGE_MAX));
    let rows = readers
        .rows(
            concat!(
                "SELECT ",
                columns!(),
                " FROM api_key WHERE account = $1 AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4"
            ),
            values![account.as_str(), place.0, place.1, limit],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// The key with this id. A whole key may be passed as well: only its public part is used.
pub(crate) async fn find(readers: &Readers, id: &str) -> Result<KeyInfo, AdminError> {
    let public = public_part(id);
    let row = readers
        .row(
            concat!("SELECT ", columns!(), " FROM api_key WHERE id = $1"),
            values![public.as_str()],
        )
        .await?;
    match row {
        Some(row) => Ok(read(&row)?),
        None => Err(no_key(&public)),
    }
}

pub(crate) fn read(row: &Row) -> Result<KeyInfo, StoreError> {
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
        caps: SpendCaps::read(row, 11)?,
        last_used_at: row.time_or_null(14)?,
        rotated_at: row.time_or_null(15)?,
        previous_until: row.time_or_null(16)?,
    })
}

/// The public part of a key, or `id` itself if it is one. The secret goes nowhere, not even into an error.
pub(crate) fn public_part(id: &str) -> String {
    let rest = id
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('_'));
    let public = rest.map_or(id, |rest| rest.split('_').next().unwrap_or(rest));
    public.to_owned()
}

pub(crate) fn no_key(id: &str) -> AdminError {
    AdminError::NotFound {
        what: "key",
        name: id.to_owned(),
    }
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

    proptest! {
        #[test]
        fn no_text_panics(text in "(sk_)?\\PC{0,80}(_\\PC{0,80})?") {
            if let Some((public, secret)) = parse(&text) {
                prop_assert_eq!(format!("sk_{public}_{secret}"), text);
            }
        }
    }
}

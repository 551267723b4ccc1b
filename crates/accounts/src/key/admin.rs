//! Adding, changing and revoking keys.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::account::deleted;
use crate::audit::{Act, By, record};
use crate::clock;
use crate::db::{Connection, StoreError, values};
use crate::error::AdminError;
use crate::events::{self, Event};
use crate::expiry::Expiry;
use crate::ids::{AccountId, KeyId, random};
use crate::key::cap::SpendCaps;
use crate::key::{
    KeyInfo, KeyOptions, NewKey, PREFIX, PUBLIC_LEN, SECRET_LEN, Secret, columns, hash, no_key,
    public_part, read,
};
use crate::quotas::Quotas;
use crate::text::{PLAIN, is_plain};
use crate::writer::{Operation, TxResult};

/// The name of a key in a refusal.
const A_KEY: &str = "a key";
const NAME_MAX: usize = 64;
/// The most models that a key may be restricted to.
const MODELS_MAX: usize = 1000;
const MODEL_ID_MAX: usize = 256;
const IDEMPOTENCY_KEY_MAX: usize = 256;

/// Changes of a key; `None` leaves a field as it is. A key's role never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    pub name: Option<Option<String>>,
    pub expires_at: Option<Option<Expiry>>,
    /// `Some(None)` is every model.
    pub models: Option<Option<Vec<String>>>,
    pub limits: Option<Quotas>,
    pub caps: Option<SpendCaps>,
}

fn check_name(name: Option<&String>) -> Result<(), AdminError> {
    if name.is_none_or(|name| plain(name) && name.len() <= NAME_MAX) {
        return Ok(());
    }
    let message = format!("a key's name has 1 to {NAME_MAX} bytes and {PLAIN}");
    Err(AdminError::invalid("name", message))
}

fn check_models(models: Option<&Vec<String>>) -> Result<(), AdminError> {
    let models = models.map_or(&[][..], Vec::as_slice);
    let good = |model: &String| plain(model) && model.len() <= MODEL_ID_MAX;
    if models.len() <= MODELS_MAX && models.iter().all(good) {
        return Ok(());
    }
    let message = format!(
        "a key is for at most {MODELS_MAX} models; a model's id has 1 to {MODEL_ID_MAX} bytes and {PLAIN}"
    );
    Err(AdminError::invalid("models", message))
}

fn check_idempotency_key(key: Option<&String>) -> Result<(), AdminError> {
    if key.is_none_or(|key| plain(key) && key.len() <= IDEMPOTENCY_KEY_MAX) {
        return Ok(());
    }
    let message = format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_MAX} bytes and {PLAIN}");
    Err(AdminError::invalid("Idempotency-Key", message))
}

fn plain(text: &str) -> bool {
    !text.is_empty() && is_plain(text)
}

/// A key's state for the audit log.
fn state(key: &KeyInfo) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "name": key.name,
        "role": key.role.name(),
        "models": key.models,
        "expires_at": time(key.expires_at),
        "revoked_at": time(key.revoked_at),
        "rotated_at": time(key.rotated_at),
        "previous_until": time(key.previous_until),
        "limits": key.limits.json(),
        "caps": key.caps.json(),
    })
}

pub(super) async fn audit(
    connection: &mut Connection,
    by: &By,
    name: &'static str,
    [old, new]: [Option<&KeyInfo>; 2],
) -> Result<(), StoreError> {
    let Some(key) = new.or(old) else {
        return Ok(());
    };
    let act = Act {
        name,
        account: &key.account,
        target: key.id.as_str(),
        old: old.map_or(Value::Null, state),
        new: new.map_or(Value::Null, state),
    };
    record(connection, by, &act).await
}

/// Reads a key to change it. On PostgreSQL its row is locked until the transaction ends.
pub(super) async fn locked(
    connection: &mut Connection,
    id: &str,
) -> Result<Option<KeyInfo>, StoreError> {
    let row = connection
        .row(
            concat!(
                "UPDATE api_key SET role = role WHERE id = $1 RETURNING ",
                columns!()
            ),
            values![id],
        )
        .await?;
    row.as_ref().map(read).transpose()
}

#[derive(Debug)]
pub(crate) struct AddKey {
    account: AccountId,
    options: KeyOptions,
    id: KeyId,
    secret: Secret,
    by: By,
}

impl AddKey {
    pub(crate) fn new(
        account: &AccountId,
        options: KeyOptions,
        by: By,
    ) -> Result<Self, AdminError> {
        check_name(options.name.as_ref())?;
        check_models(options.models.as_ref())?;
        options.limits.check()?;
        options.caps.check()?;
        check_idempotency_key(options.idempotency_key.as_ref())?;
        Ok(AddKey {
            account: account.clone(),
            options,
            id: KeyId::from(random(PUBLIC_LEN)),
            secret: Secret(random(SECRET_LEN)),
            by,
        })
    }

    async fn insert(
        &self,
        connection: &mut Connection,
        expires_at: Option<Timestamp>,
    ) -> Result<Option<KeyInfo>, StoreError> {
        let options = &self.options;
        let models = options.models.as_ref().map(|models| models.join("\n"));
        let [requests, tokens, concurrent] = options.limits.columns();
        let [total, month, day] = options.caps.columns();
        let row = connection
            .row(
                concat!(
                    "INSERT INTO api_key (id, account, name, secret_hash, models, created_at, expires_at, role,
                         requests_per_minute, tokens_per_minute, concurrent_requests, cap_total, cap_month, cap_day,
                         idempotency_key)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                     ON CONFLICT (idempotency_key) DO NOTHING RETURNING ",
                    columns!()
                ),
                values![
                    self.id.as_str(),
                    self.account.as_str(),
                    options.name.as_deref(),
                    hash(self.secret.expose()).as_slice(),
                    models.as_deref(),
                    self.by.now,
                    expires_at,
                    options.role.name(),
                    requests,
                    tokens,
                    concurrent,
                    total,
                    month,
                    day,
                    options.idempotency_key.as_deref(),
                ],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// When the key expires, where things expire by the time `lapse`.
    pub(crate) fn expires_at(&self, lapse: Timestamp) -> Result<Option<Timestamp>, AdminError> {
        let checked = |expiry: Expiry| expiry.checked(A_KEY, self.by.now, lapse);
        self.options.expires_at.map(checked).transpose()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.by.now
    }

    /// The outcome if the idempotency key was used before: done, if this very key was made (the transaction runs
    /// again), or a refusal.
    async fn made_before(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Result<(), AdminError>>, StoreError> {
        let Some(idempotency_key) = self.options.idempotency_key.as_deref() else {
            return Ok(None);
        };
        let sql = "SELECT id, account FROM api_key WHERE idempotency_key = $1";
        let Some(row) = connection.row(sql, values![idempotency_key]).await? else {
            return Ok(None);
        };
        let (id, account) = (KeyId::from(row.text(0)?), row.text(1)?);
        Ok(Some(if id == self.id {
            Ok(())
        } else if account == self.account.as_str() {
            Err(AdminError::KeyMade(id))
        } else {
            Err(AdminError::IdempotencyConflict(idempotency_key.to_owned()))
        }))
    }
}

impl Operation for AddKey {
    type Done = ();
    type Refused = AdminError;
    type Answer = Result<NewKey, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), AdminError> {
        let account = self.account.as_str();
        let known = connection
            .row("SELECT 1 FROM account WHERE id = $1", values![account])
            .await?;
        if let Some(deleted) = deleted(connection, &self.account).await? {
            return Ok(Err(deleted));
        }
        if known.is_none() {
            return Ok(Err(AdminError::NotFound {
                what: "account",
                name: account.to_owned(),
            }));
        }
        if let Some(before) = self.made_before(connection).await? {
            return Ok(before);
        }
        let lapse = clock::lapse(connection, self.by.now).await?;
        let expires_at = match self.expires_at(lapse) {
            Ok(expires_at) => expires_at,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(made) = self.insert(connection, expires_at).await? else {
            // Another node was faster.
            let before = self.made_before(connection).await?;
            return before.ok_or_else(|| StoreError::contradiction("a key was made by nobody"));
        };
        audit(connection, &self.by, "key.add", [None, Some(&made)]).await?;
        let event = Event::KeyCreated {
            key: &self.id,
            name: self.options.name.as_deref(),
            role: self.options.role,
        };
        events::write(connection, &self.account, &event, self.by.now).await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), AdminError>) -> Result<NewKey, AdminError> {
        outcome??;
        Ok(whole(self.id, &self.secret))
    }
}

/// A key that isn't made yet. Its secret can be shown first, so that no key is in force whose secret was lost.
#[derive(Debug)]
pub struct KeyDraft(pub(crate) AddKey);

impl KeyDraft {
    pub(crate) fn new(
        account: &AccountId,
        options: KeyOptions,
        by: By,
    ) -> Result<Self, AdminError> {
        AddKey::new(account, options, by).map(KeyDraft)
    }

    /// The drafted key with its secret.
    pub fn key(&self) -> NewKey {
        whole(self.0.id.clone(), &self.0.secret)
    }
}

pub(super) fn whole(id: KeyId, secret: &Secret) -> NewKey {
    let secret = Secret(format!("{PREFIX}_{id}_{}", secret.expose()));
    NewKey { id, secret }
}

#[derive(Debug)]
pub(crate) struct UpdateKey {
    id: String,
    change: KeyChange,
    by: By,
}

impl UpdateKey {
    pub(crate) fn new(id: &str, change: KeyChange, by: By) -> Result<Self, AdminError> {
        check_name(change.name.as_ref().and_then(Option::as_ref))?;
        check_models(change.models.as_ref().and_then(Option::as_ref))?;
        change.limits.unwrap_or_default().check()?;
        change.caps.unwrap_or_default().check()?;
        let id = public_part(id);
        Ok(UpdateKey { id, change, by })
    }

    /// The key after the change, where things expire by the time `lapse`.
    fn changed(&self, old: &KeyInfo, lapse: Timestamp) -> Result<KeyInfo, AdminError> {
        let change = self.change.clone();
        Ok(KeyInfo {
            name: change.name.unwrap_or_else(|| old.name.clone()),
            expires_at: self.expires_at(old, lapse)?,
            models: change.models.unwrap_or_else(|| old.models.clone()),
            limits: change.limits.unwrap_or(old.limits),
            caps: change.caps.unwrap_or(old.caps),
            ..old.clone()
        })
    }

    /// When the key expires after the change. A time that stays the same may be past.
    fn expires_at(&self, old: &KeyInfo, lapse: Timestamp) -> Result<Option<Timestamp>, AdminError> {
        match self.change.expires_at {
            None => Ok(old.expires_at),
            Some(None) => Ok(None),
            Some(Some(Expiry::At(at))) if Some(at) == old.expires_at => Ok(old.expires_at),
            Some(Some(expiry)) => expiry.checked(A_KEY, self.by.now, lapse).map(Some),
        }
    }
}

impl Operation for UpdateKey {
    type Done = KeyInfo;
    type Refused = AdminError;
    type Answer = Result<KeyInfo, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<KeyInfo, AdminError> {
        let Some(old) = locked(connection, &self.id).await? else {
            return Ok(Err(no_key(&self.id)));
        };
        if old.revoked_at.is_some() {
            return Ok(Err(revoked(&self.id)));
        }
        let lapse = clock::lapse(connection, self.by.now).await?;
        let new = match self.changed(&old, lapse) {
            Ok(new) => new,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if new == old {
            return Ok(Ok(old));
        }
        let models = new.models.as_ref().map(|models| models.join("\n"));
        let [requests, tokens, concurrent] = new.limits.columns();
        let [total, month, day] = new.caps.columns();
        let row = connection
            .row(
                concat!(
                    "UPDATE api_key SET name = $2, expires_at = $3, models = $4, requests_per_minute = $5,
                         tokens_per_minute = $6, concurrent_requests = $7, cap_total = $8, cap_month = $9, cap_day = $10
                     WHERE id = $1 RETURNING ",
                    columns!()
                ),
                values![
                    self.id.as_str(),
                    new.name.as_deref(),
                    new.expires_at,
                    models.as_deref(),
                    requests,
                    tokens,
                    concurrent,
                    total,
                    month,
                    day,
                ],
            )
            .await?;
        let new = row.as_ref().map(read).transpose()?.unwrap_or(new);
        audit(connection, &self.by, "key.update", [Some(&old), Some(&new)]).await?;
        Ok(Ok(new))
    }

    fn answer(self, outcome: TxResult<KeyInfo, AdminError>) -> Result<KeyInfo, AdminError> {
        outcome?
    }
}

pub(super) fn revoked(id: &str) -> AdminError {
    AdminError::invalid("key", format!("the key {id:?} is revoked"))
}

/// Revokes all keys of an account.
pub(crate) async fn revoke_all(
    connection: &mut Connection,
    account: &AccountId,
    by: &By,
) -> Result<(), StoreError> {
    let rows = connection
        .rows(
            concat!(
                "UPDATE api_key SET revoked_at = $2 WHERE account = $1 AND revoked_at IS NULL RETURNING ",
                columns!()
            ),
            values![account.as_str(), by.now],
        )
        .await?;
    for row in rows {
        let new = read(&row)?;
        let old = KeyInfo {
            revoked_at: None,
            ..new.clone()
        };
        audit(connection, by, "key.revoke", [Some(&old), Some(&new)]).await?;
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct RevokeKey {
    id: String,
    by: By,
}

impl RevokeKey {
    pub(crate) fn new(id: &str, by: By) -> Self {
        let id = public_part(id);
        RevokeKey { id, by }
    }
}

impl Operation for RevokeKey {
    type Done = KeyInfo;
    type Refused = AdminError;
    type Answer = Result<KeyInfo, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<KeyInfo, AdminError> {
        let Some(old) = locked(connection, &self.id).await? else {
            return Ok(Err(no_key(&self.id)));
        };
        if old.revoked_at.is_some() {
            return Ok(Ok(old));
        }
        let row = connection
            .row(
                concat!(
                    "UPDATE api_key SET revoked_at = $2 WHERE id = $1 RETURNING ",
                    columns!()
                ),
                values![self.id.as_str(), self.by.now],
            )
            .await?;
        let new = row
            .as_ref()
            .map(read)
            .transpose()?
            .unwrap_or_else(|| old.clone());
        audit(connection, &self.by, "key.revoke", [Some(&old), Some(&new)]).await?;
        Ok(Ok(new))
    }

    fn answer(self, outcome: TxResult<KeyInfo, AdminError>) -> Result<KeyInfo, AdminError> {
        outcome?
    }
}

//! `weir key`: API keys.

use std::collections::HashMap;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{
    Accounts, By, Expiry, KeyChange, KeyInfo, KeyOptions, NewKey, Quotas, SpendCaps,
};

use super::accounts::{limits, or};
use crate::cli::value::OrNone;
use crate::cli::{self, Json};
use crate::output::{self, exact, secret};

pub(crate) async fn key(accounts: &Accounts, command: cli::Key, by: &By) -> anyhow::Result<()> {
    match command {
        cli::Key::Add(add) => {
            let output = add.output;
            let account = accounts.account(&add.account).await?;
            let options = options(*add);
            let draft = accounts.draft_key(&account.id, options, by.clone()).await?;
            let NewKey { id, .. } = show_once(draft.key(), output, "it was not made")?;
            let made = accounts.make_key(draft).await;
            made.with_context(|| format!("the key {id} that was shown is not valid"))?;
            remark(output);
            Ok(())
        }
        cli::Key::List { account, output } => list(accounts, account, output).await,
        cli::Key::Show { id, output } => {
            let key = accounts.key(&id).await?;
            Ok(output::fields(output, &key_json(&key))?)
        }
        cli::Key::Set(set) => {
            let output = set.output;
            let old = accounts.key(&set.id).await?;
            let change = change(*set, &old);
            let key = accounts
                .update_key(old.id.as_str(), change, by.clone())
                .await?;
            let text = format!("{} is changed", key.id);
            Ok(output::one(output, &key_json(&key), &text)?)
        }
        cli::Key::Rotate { id, grace, output } => {
            // A wrong id or a revoked key must fail before a secret is shown.
            let key = accounts.key(&id).await?;
            if key.revoked_at.is_some() {
                bail!("the key {} is revoked", key.id);
            }
            let draft = accounts
                .draft_rotation(key.id.as_str(), grace.0, by.clone())
                .await?;
            show_once(draft.key(), output, "it keeps the secret that it has")?;
            let rotated = accounts.make_rotation(draft).await;
            rotated.with_context(|| format!("the new secret of {} is not valid", key.id))?;
            remark(output);
            Ok(())
        }
        cli::Key::Revoke { id, output } => {
            let key = accounts.revoke_key(&id, by.clone()).await?;
            let text = format!("{} is revoked", key.id);
            Ok(output::one(output, &key_json(&key), &text)?)
        }
    }
}

/// Lists the keys of an account; or all keys, with the names of their accounts.
async fn list(accounts: &Accounts, account: Option<String>, output: Json) -> anyhow::Result<()> {
    const NAMES: [&str; 8] = [
        "account_name",
        "id",
        "name",
        "role",
        "created_at",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ];
    const HEAD: [&str; 8] = [
        "ACCOUNT",
        "ID",
        "NAME",
        "ROLE",
        "CREATED",
        "LAST USED",
        "EXPIRES",
        "REVOKED",
    ];
    let Some(account) = account else {
        let names: HashMap<_, _> = accounts
            .accounts()
            .await?
            .into_iter()
            .map(|account| (account.id, account.name))
            .collect();
        let row = |key: &KeyInfo| {
            let mut row = key_json(key);
            row["account_name"] = json!(names.get(&key.account));
            row
        };
        let rows: Vec<_> = accounts.all_keys().await?.iter().map(row).collect();
        return Ok(output::rows(output, &HEAD, &NAMES, &rows)?);
    };
    let account = accounts.account(&account).await?;
    let keys = accounts.keys(&account.id).await?;
    let rows: Vec<_> = keys.iter().map(key_json).collect();
    Ok(output::rows(output, &HEAD[1..], &NAMES[1..], &rows)?)
}

/// Shows a secret before it becomes valid, so that a secret that gets lost never does.
fn show_once(key: NewKey, output: Json, otherwise: &str) -> anyhow::Result<NewKey> {
    let data = json!({"id": key.id.as_str(), "key": key.secret.expose()});
    let text = match output.json {
        true => data.to_string(),
        false => key.secret.expose().to_owned(),
    };
    match secret::show(&text) {
        Ok(()) => Ok(key),
        Err(why) => bail!("the key {} can't be shown: {why}; {otherwise}", key.id),
    }
}

fn remark(output: Json) {
    if !output.json {
        output::note("this is the only time that the key is shown");
    }
}

fn options(add: cli::AddKey) -> KeyOptions {
    KeyOptions {
        name: add.name,
        expires_at: add.expires.map(Expiry::from),
        models: (!add.models.is_empty()).then_some(add.models),
        role: add.role,
        limits: limits(Quotas::default(), add.limits),
        caps: caps(SpendCaps::default(), add.caps),
        idempotency_key: None,
    }
}

fn change(set: cli::SetKey, old: &KeyInfo) -> KeyChange {
    let models = match (set.any_model, set.models) {
        (true, _) => Some(None),
        (false, models) if models.is_empty() => None,
        (false, models) => Some(Some(models)),
    };
    KeyChange {
        name: set.name.map(|OrNone(name)| name),
        expires_at: set.expires.map(|OrNone(when)| when.map(Expiry::from)),
        models,
        limits: Some(limits(old.limits, set.limits)),
        caps: Some(caps(old.caps, set.caps)),
    }
}

/// The caps, with the given ones in place of the old.
fn caps(old: SpendCaps, given: cli::Caps) -> SpendCaps {
    SpendCaps {
        total: or(old.total, given.cap),
        month: or(old.month, given.cap_month),
        day: or(old.day, given.cap_day),
    }
}

fn key_json(key: &KeyInfo) -> Value {
    let time = |time: &Option<Timestamp>| time.as_ref().map(Timestamp::to_string);
    json!({
        "id": key.id.as_str(),
        "account": key.account.as_str(),
        "name": key.name,
        "role": key.role.name(),
        "models": key.models,
        "created_at": key.created_at.to_string(),
        "last_used_at": time(&key.last_used_at),
        "expires_at": time(&key.expires_at),
        "rotated_at": time(&key.rotated_at),
        "old_secret_until": time(&key.previous_until),
        "revoked_at": time(&key.revoked_at),
        "cap": key.caps.total.map(exact),
        "cap_month": key.caps.month.map(exact),
        "cap_day": key.caps.day.map(exact),
        "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_minute": key.limits.tokens_per_minute,
        "concurrent_requests": key.limits.concurrent_requests,
    })
}

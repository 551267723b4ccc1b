//! Keys.

use axum::Json;
use jiff::SignedDuration;
use weir_accounts::{
    AccountId, Accounts, AdminError, Expiry, KeyChange, KeyInfo, KeyOptions, KeySpend, NewKey,
};
use weir_api::admin::{
    self, Key, KeyDetail, KeySecret, KeyUpdate, Nothing, Page, PageQuery, Rotation, Spent, Time,
};

use super::endpoint::{Body, Call, MadeOnce};
use super::wire::{self, limit, page, quotas, spend_caps, time, timestamp, usd};
use crate::error::ApiError;

pub(crate) async fn list(call: Call<PageQuery, Nothing>) -> Result<Json<Page<Key>>, ApiError> {
    let limit = limit(call.query.limit)?;
    let account = call.account().await?;
    let after = match &call.query.after {
        Some(id) => Some(key_of(&call.accounts, &account.id, id).await?),
        None => None,
    };
    let found = call
        .accounts
        .keys_after(&account.id, after.as_ref(), limit + 1);
    Ok(Json(page(
        found.await?,
        limit,
        |key| key.id.to_string(),
        shown,
    )))
}

/// The last key of the previous page.
async fn key_of(accounts: &Accounts, account: &AccountId, id: &str) -> Result<KeyInfo, ApiError> {
    match accounts.key(id).await {
        Ok(key) if key.account == *account => Ok(key),
        Ok(_) | Err(AdminError::NotFound { .. }) => {
            let message = "after is the `next` of the part before";
            Err(ApiError::invalid("after", message))
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn add(
    call: Call<Nothing, MadeOnce<admin::NewKey>>,
) -> Result<Json<KeySecret>, ApiError> {
    let MadeOnce { key, body: new } = &call.input;
    let expires_at = new.expires_at.as_ref();
    let options = KeyOptions {
        name: new.name.clone(),
        expires_at: expires_at.map(expiry).transpose()?,
        models: new.models.clone(),
        role: wire::key_role(new.role),
        limits: quotas(new.limits),
        caps: spend_caps(&new.caps)?,
        idempotency_key: key.clone(),
    };
    let account = call.account().await?;
    let key = call
        .accounts
        .add_key_with(&account.id, options, call.by)
        .await?;
    Ok(Json(secret(&key)))
}

pub(crate) async fn show(call: Call<Nothing, Nothing>) -> Result<Json<KeyDetail>, ApiError> {
    let key = call.accounts.key(&call.target).await?;
    let KeySpend {
        total,
        month,
        week,
        day,
        held,
    } = call.accounts.key_spend(&key.id, call.by.now).await?;
    Ok(Json(KeyDetail {
        key: shown(&key),
        spent: Spent {
            total: usd(total),
            month: usd(month),
            week: usd(week),
            day: usd(day),
            held: usd(held),
        },
    }))
}

pub(crate) async fn update(call: Call<Nothing, Body<KeyUpdate>>) -> Result<Json<Key>, ApiError> {
    let change = change(&call.input.0)?;
    let key = call
        .accounts
        .update_key(&call.target, change, call.by)
        .await?;
    Ok(Json(shown(&key)))
}

pub(crate) async fn rotate(
    call: Call<Nothing, Body<Rotation>>,
) -> Result<Json<KeySecret>, ApiError> {
    let Body(Rotation { grace_seconds }) = call.input;
    let grace = SignedDuration::from_secs(grace_seconds.into());
    let key = call
        .accounts
        .rotate_key(&call.target, grace, call.by)
        .await?;
    Ok(Json(secret(&key)))
}

pub(crate) async fn revoke(call: Call<Nothing, Nothing>) -> Result<Json<Key>, ApiError> {
    let key = call.accounts.revoke_key(&call.target, call.by).await?;
    Ok(Json(shown(&key)))
}

fn expiry(at: &Time) -> Result<Expiry, ApiError> {
    timestamp("expires_at", at).map(Expiry::At)
}

fn change(update: &KeyUpdate) -> Result<KeyChange, ApiError> {
    let expires_at = update
        .expires_at
        .as_ref()
        .map(|at| at.as_ref().map(expiry).transpose());
    let caps = update.caps.as_ref().map(|caps| match caps {
        Some(caps) => spend_caps(caps),
        None => Ok(Default::default()),
    });
    Ok(KeyChange {
        name: update.name.clone(),
        expires_at: expires_at.transpose()?,
        models: update.models.clone(),
        limits: update
            .limits
            .map(|limits| quotas(limits.unwrap_or_default())),
        caps: caps.transpose()?,
    })
}

fn secret(key: &NewKey) -> KeySecret {
    KeySecret {
        id: key.id.to_string(),
        key: key.secret.expose().to_owned(),
    }
}

fn shown(key: &KeyInfo) -> Key {
    Key {
        id: key.id.to_string(),
        account: key.account.to_string(),
        name: key.name.clone(),
        role: wire::role(key.role),
        models: key.models.clone(),
        limits: wire::limits(key.limits),
        caps: wire::caps(key.caps),
        created_at: time(key.created_at),
        last_used_at: key.last_used_at.map(time),
        expires_at: key.expires_at.map(time),
        rotated_at: key.rotated_at.map(time),
        old_secret_until: key.previous_until.map(time),
        revoked_at: key.revoked_at.map(time),
    }
}

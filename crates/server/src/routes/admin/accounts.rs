//! Accounts.

use axum::Json;
use weir_accounts::{Account, AccountChange, Remainder, Standing};
use weir_api::admin::{
    self, AccountUpdate, DeletionQuery, NewAccount, NewSuspension, Nothing, Page, PageQuery,
};

use super::endpoint::{Body, Call};
use super::wire::{self, amount, limit, page, quotas, time, usd};
use crate::error::{ApiError, Reason};

pub(crate) async fn list(
    call: Call<PageQuery, Nothing>,
) -> Result<Json<Page<admin::Account>>, ApiError> {
    let limit = limit(call.query.limit)?;
    let after = call.query.after.unwrap_or_default();
    let found = call.accounts.accounts_after(&after, limit + 1).await?;
    Ok(Json(page(
        found,
        limit,
        |account| account.name.clone(),
        shown,
    )))
}

pub(crate) async fn add(
    call: Call<Nothing, Body<NewAccount>>,
) -> Result<Json<admin::Account>, ApiError> {
    let Body(NewAccount { name }) = call.input;
    let account = call.accounts.add_account(&name, call.by).await?;
    Ok(Json(shown(&account)))
}

pub(crate) async fn show(call: Call<Nothing, Nothing>) -> Result<Json<admin::Account>, ApiError> {
    Ok(Json(shown(&call.account().await?)))
}

pub(crate) async fn update(
    call: Call<Nothing, Body<AccountUpdate>>,
) -> Result<Json<admin::Account>, ApiError> {
    let change = change(&call.input.0)?;
    let account = call.account().await?;
    // A suspended account's keys can't administer: if this were allowed, the suspension couldn't be undone by this API.
    if account.id == call.own && matches!(change.standing, Some(Standing::Suspended { .. })) {
        let message = "this would suspend the account of the key that asks; use another account's key, or `weir account suspend`";
        return Err(ApiError::new(Reason::OwnAccount, message).param("suspended"));
    }
    let account = call
        .accounts
        .update_account(&account.id, change, call.by)
        .await?;
    Ok(Json(shown(&account)))
}

pub(crate) async fn delete(
    call: Call<DeletionQuery, Nothing>,
) -> Result<Json<admin::Account>, ApiError> {
    let account = call.account().await?;
    if account.id == call.own {
        let message = "this would delete the account of the key that asks; use another account's key, or `weir account delete`";
        return Err(ApiError::new(Reason::OwnAccount, message));
    }
    let remainder = match call.query.write_off {
        true => Remainder::WriteOff {
            reason: call
                .query
                .reason
                .unwrap_or_else(|| "account deleted".to_owned()),
        },
        false => Remainder::Refuse,
    };
    let deleted = call
        .accounts
        .delete_account(&account.id, remainder, call.by)
        .await?;
    Ok(Json(shown(&deleted)))
}

fn change(update: &AccountUpdate) -> Result<AccountChange, ApiError> {
    let credit_limit = update.credit_limit.as_ref();
    let low_balance = update.low_balance.as_ref().map(|low| {
        let low = low.as_ref().map(|low| amount("low_balance", low));
        low.transpose()
    });
    let standing = |suspended: &Option<NewSuspension>| match suspended {
        None => Standing::Active,
        Some(NewSuspension { reason }) => Standing::Suspended {
            reason: reason.clone(),
        },
    };
    let model_limits = update.model_limits.clone();
    Ok(AccountChange {
        name: update.name.clone(),
        credit_limit: credit_limit
            .map(|limit| amount("credit_limit", limit))
            .transpose()?,
        low_balance: low_balance.transpose()?,
        tier: update.tier.map(|tier| tier.map(wire::tier)),
        limits: update
            .limits
            .map(|limits| quotas(limits.unwrap_or_default())),
        model_limits: model_limits.map(|limits| {
            let limits = limits.unwrap_or_default().into_iter();
            limits
                .map(|(model, limits)| (model, quotas(limits)))
                .collect()
        }),
        standing: update.suspended.as_ref().map(standing),
    })
}

fn shown(account: &Account) -> admin::Account {
    let suspension = account
        .suspended
        .as_ref()
        .map(|suspended| admin::Suspension {
            since: time(suspended.since),
            reason: suspended.reason.clone(),
        });
    admin::Account {
        id: account.id.to_string(),
        name: account.name.clone(),
        balance: usd(account.posted),
        held: usd(account.held),
        available: usd(account.available),
        promo: usd(account.promo),
        credit_limit: usd(account.credit_limit),
        low_balance: account.low_balance.map(usd),
        tier: account.tier.map(wire::shown_tier),
        limits: wire::limits(account.limits),
        model_limits: account
            .model_limits
            .iter()
            .map(|(model, quotas)| (model.to_owned(), wire::limits(quotas)))
            .collect(),
        suspended: suspension,
        created_at: time(account.created_at),
        deleted_at: account.deleted_at.map(time),
    }
}

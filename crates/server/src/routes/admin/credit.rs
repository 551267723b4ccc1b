//! Movements of money outside of requests. Requests with the same idempotency key move the money once.

use axum::Json;
use weir_accounts::{Adjustment, Moved, Promo, Refund};
use weir_api::admin::{Movement, NewAdjustment, NewCredit, NewPromo, NewRefund, Nothing};

use super::endpoint::{Call, Once};
use super::wire::{amount, time, timestamp, usd};
use crate::error::ApiError;

pub(crate) async fn add(call: Call<Nothing, Once<NewCredit>>) -> Result<Json<Movement>, ApiError> {
    let account = call.account().await?;
    let Once { key, body } = call.input;
    let amount = amount("amount", &body.amount)?;
    let moved = call
        .accounts
        .credit(&account.id, amount, &key, &body.reason, call.by);
    Ok(Json(shown(&moved.await?)))
}

pub(crate) async fn promo(call: Call<Nothing, Once<NewPromo>>) -> Result<Json<Movement>, ApiError> {
    let account = call.account().await?;
    let Once { key, body } = call.input;
    let promo = Promo {
        account: account.id,
        amount: amount("amount", &body.amount)?,
        expires_at: timestamp("expires_at", &body.expires_at)?.into(),
        idempotency_key: key,
        reason: body.reason,
    };
    Ok(Json(shown(
        &call.accounts.give_promo(promo, call.by).await?,
    )))
}

pub(crate) async fn adjust(
    call: Call<Nothing, Once<NewAdjustment>>,
) -> Result<Json<Movement>, ApiError> {
    let account = call.account().await?;
    let Once { key, body } = call.input;
    let adjustment = Adjustment {
        account: account.id,
        amount: amount("amount", &body.amount)?,
        idempotency_key: key,
        reason: body.reason,
    };
    Ok(Json(shown(
        &call.accounts.adjust(adjustment, call.by).await?,
    )))
}

pub(crate) async fn refund(
    call: Call<Nothing, Once<NewRefund>>,
) -> Result<Json<Movement>, ApiError> {
    let Once { key, body } = call.input;
    let part = body.amount.as_ref();
    let refund = Refund {
        request: body.request,
        attempt: body.attempt,
        amount: part.map(|part| amount("amount", part)).transpose()?,
        idempotency_key: key,
        reason: body.reason,
    };
    Ok(Json(shown(&call.accounts.refund(refund, call.by).await?)))
}

fn shown(moved: &Moved) -> Movement {
    Movement {
        transaction: moved.transaction,
        account: moved.account.to_string(),
        amount: usd(moved.amount),
        balance: usd(moved.posted),
        at: time(moved.at),
        replayed: moved.replayed,
    }
}

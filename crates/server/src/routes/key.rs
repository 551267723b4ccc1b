//! `GET key`: the permissions and the spend of the request's key.

use axum::extract::State;
use axum::{Extension, Json};
use weir_accounts::{Caller, Nanos};
use weir_api::billing::{KeyAnswer, KeyData, RateLimit, Usd};

use crate::app::App;
use crate::error::ApiError;

pub(crate) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<KeyAnswer>, ApiError> {
    let (key, spent) = app.gateway.own_key(&caller).await?;
    let account = app.gateway.own_account(&caller).await?;
    let caps = [
        (key.caps.total, spent.total),
        (key.caps.month, spent.month),
        (key.caps.day, spent.day),
    ];
    let remaining = caps
        .into_iter()
        .filter_map(|(cap, of_period)| {
            let left = cap?.checked_sub(of_period)?.checked_sub(spent.held)?;
            Some(left.max(Nanos::ZERO))
        })
        .fold(account.available, Nanos::min);
    Ok(Json(KeyAnswer {
        data: KeyData {
            label: key.id.to_string(),
            name: key.name,
            created_at: key.created_at.as_second(),
            expires_at: key.expires_at.map(|at| at.as_second()),
            models: key.models,
            usage: usd(spent.total),
            usage_daily: usd(spent.day),
            usage_weekly: usd(spent.week),
            usage_monthly: usd(spent.month),
            held: usd(spent.held),
            limit: key.caps.total.map(usd),
            limit_monthly: key.caps.month.map(usd),
            limit_daily: key.caps.day.map(usd),
            limit_remaining: usd(remaining),
            rate_limit: RateLimit {
                requests_per_minute: key.limits.requests_per_minute,
                tokens_per_minute: key.limits.tokens_per_minute,
                concurrent_requests: key.limits.concurrent_requests,
            },
        },
    }))
}

fn usd(amount: Nanos) -> Usd {
    Usd::new(amount.to_string()).expect("an amount is written as a decimal number")
}

//! `weir credit`, `promo`, `refund` and `adjust`: money that isn't moved by a request.

use anyhow::{Context, anyhow};
use serde_json::json;
use weir_accounts::{Accounts, Adjustment, AdminError, By, Moved, Promo, Refund};

use crate::cli::{self, Json};
use crate::output::{self, exact};

pub(crate) async fn credit(
    accounts: &Accounts,
    command: cli::Credit,
    by: &By,
) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let key = reference(command.reference)?;
    let moved = accounts
        .credit(
            &account.id,
            command.amount,
            &key,
            &command.reason,
            by.clone(),
        )
        .await;
    let moved = moved.map_err(of_reference)?;
    told(&account.name, "credited with", &moved, command.output)
}

pub(crate) async fn promo(accounts: &Accounts, command: cli::Promo, by: &By) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let promo = Promo {
        account: account.id,
        amount: command.amount,
        expires_at: command.expires.into(),
        idempotency_key: reference(command.reference)?,
        reason: command.reason,
    };
    let moved = accounts.give_promo(promo, by.clone()).await;
    let moved = moved.map_err(of_reference)?;
    told(&account.name, "given", &moved, command.output)
}

pub(crate) async fn adjust(
    accounts: &Accounts,
    command: cli::Adjust,
    by: &By,
) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let adjustment = Adjustment {
        account: account.id,
        amount: command.amount,
        idempotency_key: reference(command.reference)?,
        reason: command.reason,
    };
    let moved = accounts.adjust(adjustment, by.clone()).await;
    let moved = moved.map_err(of_reference)?;
    told(&account.name, "adjusted by", &moved, command.output)
}

pub(crate) async fn refund(
    accounts: &Accounts,
    command: cli::Refund,
    by: &By,
) -> anyhow::Result<()> {
    let refund = Refund {
        request: command.request,
        attempt: command.attempt,
        amount: command.amount,
        idempotency_key: reference(command.reference)?,
        reason: command.reason,
    };
    let moved = accounts.refund(refund, by.clone()).await;
    let moved = moved.map_err(of_reference)?;
    let account = accounts.account(moved.account.as_str()).await?;
    told(&account.name, "refunded", &moved, command.output)
}

/// The idempotency key: the operator's, or a random one.
fn reference(given: Option<String>) -> anyhow::Result<String> {
    match given {
        Some(reference) => Ok(reference),
        None => Ok(format!("{:032x}", random()?)),
    }
}

/// Says of the option `--reference` what the error says of an idempotency key.
fn of_reference(error: AdminError) -> anyhow::Error {
    match error {
        AdminError::BadIdempotencyKey(rule) => anyhow!("a reference has {rule}"),
        AdminError::IdempotencyConflict(reference) => anyhow!(
            "the reference {reference:?} was used for something else: give another one, or exactly what was given the \
             first time, the reason included"
        ),
        error => error.into(),
    }
}

fn random() -> anyhow::Result<u128> {
    let half = || getrandom::u64().context("no randomness").map(u128::from);
    Ok(half()? << 64 | half()?)
}

fn told(name: &str, done: &str, moved: &Moved, output: Json) -> anyhow::Result<()> {
    let data = json!({
        "transaction": moved.transaction,
        "account": moved.account.as_str(),
        "amount": exact(moved.amount),
        "balance": exact(moved.posted),
        "replayed": moved.replayed,
    });
    let (amount, balance) = (moved.amount, moved.posted);
    let text = match moved.replayed {
        false => format!("{name} {done} {amount} USD; balance {balance} USD"),
        true => format!(
            "{name} was {done} {amount} USD by this reference before, and nothing is changed; the balance was {balance} USD \
             then"
        ),
    };
    Ok(output::one(output, &data, &text)?)
}

//! What was used, booked and done.

use axum::Json;
use serde_json::Value;
use weir_accounts::{AuditRecord, LedgerRecord, UsageEntry};
use weir_api::admin::{
    self, AuditQuery, Entry, Nothing, Page, PageQuery, Transaction, UsageRecord,
};

use super::endpoint::Call;
use super::wire::{limit, newest, page, time, usd};
use crate::error::ApiError;

pub(crate) async fn usage(
    call: Call<PageQuery, Nothing>,
) -> Result<Json<Page<UsageRecord>>, ApiError> {
    let limit = limit(call.query.limit)?;
    let place = newest(limit, call.query.after.as_deref())?;
    let account = call.account().await?;
    let found = call.accounts.usage_page(&account.id, place).await?;
    Ok(Json(page(
        found,
        limit,
        |found| found.id.to_string(),
        shown_usage,
    )))
}

pub(crate) async fn ledger(
    call: Call<PageQuery, Nothing>,
) -> Result<Json<Page<Transaction>>, ApiError> {
    let limit = limit(call.query.limit)?;
    let place = newest(limit, call.query.after.as_deref())?;
    let account = call.account().await?;
    let found = call.accounts.ledger(&account.id, place).await?;
    Ok(Json(page(
        found,
        limit,
        |found| found.id.to_string(),
        shown_transaction,
    )))
}

pub(crate) async fn audit(
    call: Call<AuditQuery, Nothing>,
) -> Result<Json<Page<admin::AuditRecord>>, ApiError> {
    let limit = limit(call.query.limit)?;
    let place = newest(limit, call.query.after.as_deref())?;
    let account = match &call.query.account {
        Some(account) => Some(call.accounts.account(account).await?.id),
        None => None,
    };
    let found = call.accounts.audit(account.as_ref(), place).await?;
    Ok(Json(page(
        found,
        limit,
        |found| found.id.to_string(),
        shown_act,
    )))
}

pub(super) fn shown_usage(entry: &UsageEntry) -> UsageRecord {
    let record = &entry.record;
    UsageRecord {
        id: entry.id,
        account: entry.account.to_string(),
        key: record.key.to_string(),
        request: record.request.clone(),
        attempt: record.attempt,
        model: record.model.clone(),
        prompt_tokens: record.counts.prompt,
        cached_tokens: record.counts.cached,
        completion_tokens: record.counts.completion,
        reasoning_tokens: record.counts.reasoning,
        input_price: record.price.input,
        cached_price: record.price.cached.unwrap_or(record.price.input),
        output_price: record.price.output,
        cost: usd(record.cost),
        promo: usd(record.promo),
        outcome: record.outcome.name(),
        source: record.source.name(),
        started_at: time(record.started_at),
        ended_at: time(record.ended_at),
    }
}

fn shown_transaction(record: &LedgerRecord) -> Transaction {
    let entry = |(book, amount): &(String, _)| Entry {
        book: book.clone(),
        amount: usd(*amount),
    };
    Transaction {
        id: record.id,
        at: time(record.at),
        kind: record.kind.clone(),
        reason: record.reason.clone(),
        actor: record.actor.clone(),
        request: record.request.clone(),
        balance: usd(record.posted),
        entries: record.entries.iter().map(entry).collect(),
    }
}

fn shown_act(record: &AuditRecord) -> admin::AuditRecord {
    // What isn't JSON was not written by us; it is shown as what it is.
    let state = |state: &Option<String>| match state {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
    };
    admin::AuditRecord {
        id: record.id,
        at: time(record.at),
        actor: record.actor.clone(),
        act: record.act.clone(),
        account: record.account.to_string(),
        target: record.target.clone(),
        before: state(&record.old),
        after: state(&record.new),
    }
}

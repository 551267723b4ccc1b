//! Usage records, the ledger and the audit log.

use axum::Json;
use serde_json::Value;
use weir_accounts::{AuditRecord, LedgerRecord};
use weir_api::admin::{
    self, AuditQuery, Entry, Nothing, Page, PageQuery, Transaction, UsageRecord,
};

use super::endpoint::Call;
use super::wire::{limit, newest, page, time, usd};
use crate::error::ApiError;
use crate::export::shown_usage;

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
    // Text that isn't JSON wasn't written by this server; it is shown as a string.
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

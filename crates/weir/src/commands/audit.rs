//! `weir audit`: the audit log.

use serde_json::{Value, json};
use weir_accounts::{Accounts, AuditRecord, Page};

use crate::cli;
use crate::output;

pub(crate) async fn audit(accounts: &Accounts, command: cli::Audit) -> anyhow::Result<()> {
    let account = match &command.account {
        Some(account) => Some(accounts.account(account).await?.id),
        None => None,
    };
    let page = Page {
        before: command.before,
        limit: command.limit,
    };
    let records = accounts.audit(account.as_ref(), page).await?;
    let rows: Vec<_> = records.iter().map(record_json).collect();
    let names = ["id", "at", "actor", "act", "target", "before", "after"];
    let head = ["ID", "AT", "ACTOR", "ACT", "TARGET", "BEFORE", "AFTER"];
    Ok(output::rows(command.output, &head, &names, &rows)?)
}

fn record_json(record: &AuditRecord) -> Value {
    // Weir writes JSON only; other texts are shown as they are.
    let state = |state: &Option<String>| match state {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
    };
    json!({
        "id": record.id,
        "at": record.at.to_string(),
        "actor": record.actor,
        "act": record.act,
        "account": record.account.as_str(),
        "target": record.target,
        "before": state(&record.old),
        "after": state(&record.new),
    })
}

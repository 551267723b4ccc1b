//! `weir usage`: the usage and the cost of requests. Works beside a running server.

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{Accounts, UsageFilter, UsageRecord};
use weir_server::export::{self, Export, Wanted};

use crate::cli::value::Moment;
use crate::cli::{self, UsageFile};
use crate::config::Invalid;
use crate::output::{self, exact};

pub(crate) async fn usage(accounts: &Accounts, command: cli::Usage) -> anyhow::Result<()> {
    let name = match (command.file, command.account) {
        (Some(UsageFile::Export(command)), _) => return export_usage(accounts, command).await,
        (None, name) => name.context("the name of an account is missing")?,
    };
    let account = accounts.account(&name).await?;
    let found = match (command.from, command.to) {
        (None, None) => accounts.usage(&account.id, command.limit).await?,
        (from, to) => {
            let time = period(from, to)?;
            accounts
                .usage_between(&account.id, time, command.limit)
                .await?
        }
    };
    let rows: Vec<_> = found.iter().map(usage_json).collect();
    let names = [
        "started_at",
        "model",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "cost",
        "outcome",
        "key",
    ];
    let head = [
        "STARTED",
        "MODEL",
        "PROMPT",
        "CACHED",
        "COMPLETION",
        "COST",
        "OUTCOME",
        "KEY",
    ];
    Ok(output::rows(command.output, &head, &names, &rows)?)
}

fn period(from: Option<Moment>, to: Option<Moment>) -> anyhow::Result<[Timestamp; 2]> {
    let [from, to] = [from, to].map(|moment| moment.map(|Moment(at)| at));
    export::period(from, to).map_err(|error| Invalid(vec![error.to_string()]).into())
}

/// Prints the same file as the administrative API, in parts.
async fn export_usage(accounts: &Accounts, command: cli::ExportUsage) -> anyhow::Result<()> {
    let account = match &command.account {
        Some(account) => Some(accounts.account(account).await?.id),
        None => None,
    };
    let key = match &command.key {
        Some(key) => Some(accounts.key(key).await?.id.to_string()),
        None => None,
    };
    let [from, to] = period(command.from, command.to)?;
    let filter = UsageFilter {
        key,
        model: command.model,
        from,
        to,
    };
    let wanted = Wanted {
        format: command.format,
        by: command.by,
        account,
        filter,
    };
    let mut export = Export::open(accounts.clone(), wanted).await?;
    while let Some(piece) = export.next().await? {
        output::piece(&piece)?;
    }
    Ok(())
}

fn usage_json(record: &UsageRecord) -> Value {
    json!({
        "request": record.request,
        "attempt": record.attempt,
        "key": record.key.as_str(),
        "model": record.model,
        "prompt_tokens": record.counts.prompt,
        "cached_tokens": record.counts.cached,
        "completion_tokens": record.counts.completion,
        "input_price": record.price.input,
        "output_price": record.price.output,
        "cost": exact(record.cost),
        "promo": exact(record.promo),
        "outcome": record.outcome.name(),
        "started_at": record.started_at.to_string(),
        "ended_at": record.ended_at.to_string(),
    })
}

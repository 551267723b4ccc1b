//! `weir ledger`: the transactions, and whether the books balance. Works beside a running server.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{Accounts, LedgerRecord, Nanos, Options, Page};

use super::accounts;
use crate::cli::{self, Json};
use crate::output::{self, exact};

/// Prints transactions, newest first.
pub(crate) async fn show(accounts: &Accounts, command: cli::ShowLedger) -> anyhow::Result<()> {
    let page = Page {
        before: command.before,
        limit: command.limit,
    };
    let records = match &command.account {
        Some(account) => {
            let account = accounts.account(account).await?;
            accounts.ledger(&account.id, page).await?
        }
        None => accounts.whole_ledger(page).await?,
    };
    let rows: Vec<_> = records.iter().map(record_json).collect();
    output::list(
        command.output,
        &["ID", "AT", "ACCOUNT", "KIND", "MOVED", "BALANCE", "REASON"],
        &rows,
        |row| {
            let names = ["id", "at", "account", "kind", "", "balance", "reason"];
            let moved = row["entries"].as_array().into_iter().flatten();
            let moved = moved.map(|entry| {
                let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                // Without the account of a wallet, which has a column of its own.
                let book = text("book");
                format!(
                    "{} {}",
                    book.split(':').next().unwrap_or(&book),
                    text("amount")
                )
            });
            let moved = moved.collect::<Vec<_>>().join(", ");
            let cell = |name: &str| match name {
                "" => moved.clone(),
                name => output::cell(&row[name]),
            };
            names.map(cell).to_vec()
        },
    )?;
    Ok(())
}

fn record_json(record: &LedgerRecord) -> Value {
    let entry = |(book, amount): &(String, Nanos)| json!({"book": book, "amount": exact(amount)});
    json!({
        "id": record.id,
        "at": record.at.to_string(),
        "account": record.account.as_str(),
        "kind": record.kind,
        "reason": record.reason,
        "actor": record.actor,
        "request": record.request,
        "balance": exact(record.posted),
        "entries": record.entries.iter().map(entry).collect::<Vec<_>>(),
    })
}

const EXIT_DIFFERENCES: u8 = 1;
const EXIT_UNKNOWN: u8 = 2;

/// Prints each difference on a line of its own.
pub(crate) async fn verify(
    options: Options,
    output: Json,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let differences = match Box::pin(differences(options, now)).await {
        Ok(differences) => differences,
        Err(error) => {
            output::note(&format!("{error:#}"));
            return Ok(ExitCode::from(EXIT_UNKNOWN));
        }
    };
    let text = match &differences[..] {
        [] => "the books balance".to_owned(),
        some => some.join("\n"),
    };
    let data = json!({"differences": differences});
    output::unless_closed(output::one(output, &data, &text))?;
    Ok(match differences.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DIFFERENCES),
    })
}

pub(super) async fn differences(options: Options, now: Timestamp) -> anyhow::Result<Vec<String>> {
    let opened = accounts::open(options, false, now).await?;
    let differences = opened.verify().await;
    opened.close().await;
    Ok(differences?)
}

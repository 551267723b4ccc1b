//! Accounts, credit, keys and usage. All of it works beside a running server, which sees it within a second.

use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{Account, Accounts, KeyInfo, Nanos, Options, Outcome, Role, UsageRecord};

use crate::cli::{self, Json};
use crate::output::{self, exact};

/// The database's file in the data directory.
pub(crate) const DATABASE: &str = "weir.db";

/// Opens the database as a tool does. Only adding an account may create it: elsewhere a missing one
/// means that `--data` or the config is not the server's.
pub(crate) async fn open(
    data: &Path,
    may_create: bool,
    now: Timestamp,
) -> anyhow::Result<Accounts> {
    let database = data.join(DATABASE);
    if !may_create && !database.exists() {
        bail!(
            "there is no database in {}; does --data or the config name the server's directory?",
            data.display()
        );
    }
    let shown = database.display().to_string();
    Accounts::open(Options::new(database, Role::Tool), now)
        .await
        .with_context(|| format!("can't open {shown}"))
}

pub(crate) async fn account(
    accounts: &Accounts,
    command: cli::Account,
    now: Timestamp,
) -> anyhow::Result<()> {
    match command {
        cli::Account::Add {
            name,
            credit,
            output,
        } => {
            if credit.is_negative() {
                bail!("an account can't start with {credit} USD");
            }
            let mut account = accounts.add_account(&name, now).await?;
            if credit.is_positive() {
                let key = format!("opening:{}", account.id);
                accounts
                    .credit(&account.id, credit, &key, "opening credit", now)
                    .await?;
                account = accounts.account(account.id.as_str()).await?;
            }
            let text = format!(
                "{} {} with {} USD",
                account.id, account.name, account.posted
            );
            output::one(output, &account_json(&account), &text)?;
        }
        cli::Account::List(output) => {
            let list = accounts.accounts().await?;
            let rows: Vec<_> = list.iter().map(account_json).collect();
            let names = ["id", "name", "balance", "held", "available", "created_at"];
            print(
                output,
                &["ID", "NAME", "BALANCE", "HELD", "AVAILABLE", "CREATED"],
                &names,
                &rows,
            )?;
        }
    }
    Ok(())
}

pub(crate) async fn credit(
    accounts: &Accounts,
    command: cli::Credit,
    now: Timestamp,
) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let key = match &command.reference {
        Some(reference) => format!("credit:{reference}"),
        None => format!("credit:{:016x}", getrandom::u64().context("no randomness")?),
    };
    let credited = accounts
        .credit(&account.id, command.amount, &key, &command.reason, now)
        .await?;
    let data = json!({
        "account": account.id.as_str(),
        "amount": exact(credited.amount),
        "balance": exact(credited.posted),
        "replayed": credited.replayed,
    });
    let done = if credited.replayed {
        "was credited before with"
    } else {
        "credited with"
    };
    let text = format!(
        "{} {done} {} USD; balance {} USD",
        account.name, credited.amount, credited.posted
    );
    output::one(command.output, &data, &text)?;
    Ok(())
}

pub(crate) async fn key(
    accounts: &Accounts,
    command: cli::Key,
    now: Timestamp,
) -> anyhow::Result<()> {
    match command {
        cli::Key::Add {
            account,
            name,
            output,
        } => {
            let account = accounts.account(&account).await?;
            let key = accounts.add_key(&account.id, name.as_deref(), now).await?;
            let data = json!({"id": key.id.as_str(), "key": key.secret.expose()});
            output::one(output, &data, key.secret.expose())?;
            if !output.json {
                output::note("this is the only time that the key is shown")?;
            }
        }
        cli::Key::List { account, output } => {
            let account = accounts.account(&account).await?;
            let rows: Vec<_> = accounts
                .keys(&account.id)
                .await?
                .iter()
                .map(key_json)
                .collect();
            let names = ["id", "name", "created_at", "expires_at", "revoked_at"];
            print(
                output,
                &["ID", "NAME", "CREATED", "EXPIRES", "REVOKED"],
                &names,
                &rows,
            )?;
        }
        cli::Key::Revoke { id, output } => {
            let key = accounts.revoke_key(&id, now).await?;
            output::one(output, &key_json(&key), &format!("{} is revoked", key.id))?;
        }
    }
    Ok(())
}

pub(crate) async fn usage(accounts: &Accounts, command: cli::Usage) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let rows: Vec<_> = accounts
        .usage(&account.id, command.limit)
        .await?
        .iter()
        .map(usage_json)
        .collect();
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
    print(command.output, &head, &names, &rows)?;
    Ok(())
}

/// All of each row as JSON, or the named fields as a table.
fn print(output: Json, head: &[&str], names: &[&str], rows: &[Value]) -> std::io::Result<()> {
    output::list(output, head, rows, |row| {
        let cell = |name: &&str| match &row[*name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        names.iter().map(cell).collect()
    })
}

fn account_json(account: &Account) -> Value {
    json!({
        "id": account.id.as_str(),
        "name": account.name,
        "balance": exact(account.posted),
        "held": exact(account.held),
        "available": exact(account.available),
        "created_at": account.created_at.to_string(),
    })
}

fn key_json(key: &KeyInfo) -> Value {
    let time = |time: &Option<Timestamp>| time.as_ref().map(Timestamp::to_string);
    json!({
        "id": key.id.as_str(),
        "account": key.account.as_str(),
        "name": key.name,
        "models": key.models,
        "created_at": key.created_at.to_string(),
        "expires_at": time(&key.expires_at),
        "revoked_at": time(&key.revoked_at),
    })
}

fn usage_json(record: &UsageRecord) -> Value {
    let outcome = match record.outcome {
        Outcome::Success => "success",
        Outcome::Disconnected => "disconnected",
        Outcome::EngineFailed => "engine_failed",
        Outcome::Expired => "expired",
    };
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
        "outcome": outcome,
        "started_at": record.started_at.to_string(),
        "ended_at": record.ended_at.to_string(),
    })
}

/// What the first start gives away: an account to try things with, and its key. A start that was
/// interrupted is finished by the next one.
pub(crate) async fn demo(
    accounts: &Accounts,
    now: Timestamp,
) -> anyhow::Result<Option<weir_accounts::NewKey>> {
    let account = match accounts.accounts().await?.as_slice() {
        [] => accounts.add_account("demo", now).await?,
        [only] if only.name == "demo" && accounts.keys(&only.id).await?.is_empty() => only.clone(),
        _ => return Ok(None),
    };
    let five = Nanos::from_usd(5).expect("5 USD can be counted");
    let key = format!("opening:{}", account.id);
    accounts
        .credit(&account.id, five, &key, "opening credit", now)
        .await?;
    Ok(Some(
        accounts
            .add_key(&account.id, Some("first start"), now)
            .await?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interrupted_first_start_is_finished_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join(DATABASE), Role::Tool);
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let accounts = Accounts::open(options, now).await.unwrap();
        accounts.add_account("demo", now).await.unwrap();
        let key = demo(&accounts, now).await.unwrap().expect("a key");
        let caller = accounts.authenticate(key.secret.expose(), now).await;
        assert!(caller.is_ok());
        let credit = accounts.account("demo").await.unwrap().available;
        assert_eq!(credit, Nanos::from_usd(5).unwrap());
        assert!(demo(&accounts, now).await.unwrap().is_none(), "only once");
        accounts.close().await;
    }
}

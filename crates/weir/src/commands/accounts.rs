//! `weir account`. All of it works beside a running server, which sees changes within a second.

use std::io::ErrorKind;

use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weir_accounts::{
    Account, AccountChange, Accounts, AdminError, By, KeyDraft, KeyOptions, Location, Nanos,
    OpenError, Options, Quotas, Remainder, Role, Standing, Tier,
};

use crate::cli::value::OrNone;
use crate::cli::{self, Json};
use crate::output::{self, exact};

/// The name of the account that the first start makes.
pub(crate) const DEMO: &str = "demo";
/// The name of the database's file in the data directory.
pub(crate) const DATABASE: &str = "weir.db";

/// Opens the database with the role of a tool. Only adding an account may create the database: for other commands a missing one
/// means that `--data` or the config isn't the server's.
pub(crate) async fn open(
    options: Options,
    may_create: bool,
    now: Timestamp,
) -> anyhow::Result<Accounts> {
    if let Location::Sqlite(path) = &options.database
        && !may_create
    {
        let folder = path.parent().unwrap_or(path).display();
        match path.try_exists() {
            Ok(true) => {}
            // If the database existed once and is lost, opening it returns a more precise error.
            Ok(false) if !is_missing(&options, now).await => {}
            Ok(false) => bail!(
                "there is no database in {folder}; does --data or the config name the server's directory?"
            ),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("the database in {folder} can't be looked for: this user has no permission")
            }
            Err(error) => bail!("the database in {folder} can't be looked for: {error}"),
        }
    }
    let location = options.database.clone();
    let opened = Accounts::open(options, now).await;
    opened.map_err(|error| not_opened(&location, error))
}

/// The error of opening a database, which names the place once.
pub(crate) fn not_opened(location: &Location, error: OpenError) -> anyhow::Error {
    match error.names_place() {
        true => error.into(),
        false => anyhow::Error::new(error).context(format!("can't open {location}")),
    }
}

async fn is_missing(options: &Options, now: Timestamp) -> bool {
    let reading = Options {
        role: Role::Reader,
        ..options.clone()
    };
    matches!(
        Accounts::open(reading, now).await,
        Err(OpenError::Missing(_))
    )
}

pub(crate) async fn account(
    accounts: &Accounts,
    command: cli::Account,
    by: &By,
) -> anyhow::Result<()> {
    match command {
        cli::Account::Add {
            name,
            credit,
            output,
        } => add(accounts, &name, credit, by, output).await,
        cli::Account::List { deleted, output } => list(accounts, deleted, output).await,
        cli::Account::Show { account, output } => {
            let account = accounts.account(&account).await?;
            Ok(output::fields(output, &account_json(&account))?)
        }
        cli::Account::Set(set) => change(accounts, set, by).await,
        cli::Account::Suspend {
            account,
            reason,
            output,
        } => {
            stand(
                accounts,
                &account,
                Standing::Suspended { reason },
                by,
                output,
            )
            .await
        }
        cli::Account::Resume { account, output } => {
            stand(accounts, &account, Standing::Active, by, output).await
        }
        cli::Account::Delete {
            account,
            write_off,
            reason,
            output,
        } => {
            let remainder = match write_off {
                true => Remainder::WriteOff { reason },
                false => Remainder::Refuse,
            };
            delete(accounts, &account, remainder, by, output).await
        }
    }
}

async fn add(
    accounts: &Accounts,
    name: &str,
    credit: Nanos,
    by: &By,
    output: Json,
) -> anyhow::Result<()> {
    if credit.is_negative() {
        bail!("an account can't start with {credit} USD");
    }
    let account = accounts.open_account(name, credit, by.clone()).await?;
    let text = format!(
        "{} {} with {} USD",
        account.id, account.name, account.posted
    );
    Ok(output::one(output, &account_json(&account), &text)?)
}

async fn list(accounts: &Accounts, deleted: bool, output: Json) -> anyhow::Result<()> {
    let list = accounts.accounts().await?;
    let shown = list
        .iter()
        .filter(|account| deleted || account.deleted_at.is_none());
    let rows: Vec<_> = shown.map(account_json).collect();
    let names = ["id", "name", "balance", "held", "available", "created_at"];
    let head = ["ID", "NAME", "BALANCE", "HELD", "AVAILABLE", "CREATED"];
    Ok(output::rows(output, &head, &names, &rows)?)
}

async fn change(accounts: &Accounts, set: cli::SetAccount, by: &By) -> anyhow::Result<()> {
    let account = accounts.account(&set.account).await?;
    let model_limits = set.model.as_ref().map(|model| {
        let old = account.model_limits.clone();
        let new = limits(old.of(model), set.limits);
        old.with(model.clone(), new)
    });
    let of_all = set.model.is_none();
    let change = AccountChange {
        name: set.name,
        credit_limit: set.credit_limit,
        low_balance: set.low_balance.map(|OrNone(amount)| amount),
        tier: set.tier.map(|OrNone(tier)| tier),
        limits: of_all.then(|| limits(account.limits, set.limits)),
        model_limits,
        standing: None,
    };
    let account = accounts
        .update_account(&account.id, change, by.clone())
        .await?;
    let text = format!("{} is changed", account.name);
    Ok(output::one(set.output, &account_json(&account), &text)?)
}

/// The limits, with the given ones in place of the old.
pub(super) fn limits(old: Quotas, given: cli::Limits) -> Quotas {
    Quotas {
        requests_per_minute: or(old.requests_per_minute, given.requests_per_minute),
        tokens_per_minute: or(old.tokens_per_minute, given.tokens_per_minute),
        concurrent_requests: or(old.concurrent_requests, given.concurrent_requests),
    }
}

pub(super) fn or<T>(old: Option<T>, given: Option<OrNone<T>>) -> Option<T> {
    given.map_or(old, |OrNone(value)| value)
}

async fn stand(
    accounts: &Accounts,
    account: &str,
    standing: Standing,
    by: &By,
    output: Json,
) -> anyhow::Result<()> {
    let account = accounts.account(account).await?;
    let change = AccountChange {
        standing: Some(standing),
        ..AccountChange::default()
    };
    let account = accounts
        .update_account(&account.id, change, by.clone())
        .await?;
    let text = match account.suspended {
        Some(_) => format!("{} is suspended", account.name),
        None => format!("{} is served", account.name),
    };
    Ok(output::one(output, &account_json(&account), &text)?)
}

async fn delete(
    accounts: &Accounts,
    account: &str,
    remainder: Remainder,
    by: &By,
    output: Json,
) -> anyhow::Result<()> {
    let account = accounts.account(account).await?;
    let deleted = accounts
        .delete_account(&account.id, remainder, by.clone())
        .await;
    let hint = |error: &AdminError| match error {
        AdminError::NotEmpty(why) if why.contains("write it off") => "; `--write-off` does",
        _ => "",
    };
    let deleted = deleted.map_err(|error| anyhow::anyhow!("{error}{}", hint(&error)))?;
    let text = format!(
        "{} is deleted; its records are those of {}",
        account.name, deleted.id
    );
    Ok(output::one(output, &account_json(&deleted), &text)?)
}

/// `weir balance`: the most wanted fields of an account.
pub(crate) async fn balance(accounts: &Accounts, command: cli::Balance) -> anyhow::Result<()> {
    let account = accounts.account(&command.account).await?;
    let all = account_json(&account);
    let names = [
        "name",
        "balance",
        "held",
        "available",
        "promo",
        "credit_limit",
    ];
    let shown: Map<_, _> = names
        .into_iter()
        .map(|name| (name.to_owned(), all[name].clone()))
        .collect();
    Ok(output::fields(command.output, &Value::Object(shown))?)
}

fn account_json(account: &Account) -> Value {
    let model_limits: Map<_, _> = account
        .model_limits
        .iter()
        .map(|(model, limits)| (model.to_owned(), limits_json(limits)))
        .collect();
    json!({
        "id": account.id.as_str(),
        "name": account.name,
        "balance": exact(account.posted),
        "held": exact(account.held),
        "available": exact(account.available),
        "promo": exact(account.promo),
        "credit_limit": exact(account.credit_limit),
        "low_balance": account.low_balance.map(exact),
        "tier": account.tier.map(Tier::name),
        "requests_per_minute": account.limits.requests_per_minute,
        "tokens_per_minute": account.limits.tokens_per_minute,
        "concurrent_requests": account.limits.concurrent_requests,
        "model_limits": model_limits,
        "suspended_since": account.suspended.as_ref().map(|suspended| suspended.since.to_string()),
        "suspended_reason": account.suspended.as_ref().map(|suspended| suspended.reason.as_str()),
        "created_at": account.created_at.to_string(),
        "deleted_at": account.deleted_at.as_ref().map(Timestamp::to_string),
    })
}

fn limits_json(limits: Quotas) -> Value {
    json!({
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent_requests": limits.concurrent_requests,
    })
}

/// The account of the first start, with credit, and a key that isn't valid yet. If an earlier start was interrupted before it made
/// the key, this one goes on with its account.
pub(crate) async fn demo(accounts: &Accounts, now: Timestamp) -> anyhow::Result<Option<KeyDraft>> {
    let five = Nanos::from_usd(5).expect("5 USD can be counted");
    let account = match accounts.accounts().await?.as_slice() {
        [] => match accounts.open_account(DEMO, five, now).await {
            // Another node is having its first start at the same time.
            Err(AdminError::NameTaken(_)) => return Ok(None),
            made => made?,
        },
        [only] if only.name == DEMO && accounts.keys(&only.id).await?.is_empty() => only.clone(),
        _ => return Ok(None),
    };
    let options = KeyOptions {
        name: Some("first start".to_owned()),
        ..KeyOptions::default()
    };
    Ok(Some(accounts.draft_key(&account.id, options, now).await?))
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
        let five = Nanos::from_usd(5).unwrap();
        accounts.open_account("demo", five, now).await.unwrap();
        // A key that wasn't shown wasn't made: the next start draws another one.
        demo(&accounts, now).await.unwrap().expect("a key");
        let draft = demo(&accounts, now).await.unwrap().expect("a key");
        let key = accounts.make_key(draft).await.unwrap();
        let caller = accounts.authenticate(key.secret.expose(), now).await;
        assert!(caller.is_ok());
        let credit = accounts.account("demo").await.unwrap().available;
        assert_eq!(credit, five);
        assert!(demo(&accounts, now).await.unwrap().is_none(), "only once");
        accounts.close().await;
    }
}

//! Accounts: who holds a balance.

pub(crate) mod admin;
pub(crate) mod delete;

use jiff::Timestamp;

use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::error::AdminError;
use crate::ids::AccountId;
use crate::money::Nanos;
use crate::page::PAGE_MAX;
use crate::quotas::by_model::ModelQuotas;
use crate::quotas::{self, Quotas, Tier};

/// The prefix of account ids. No name may begin with it.
const ID_PREFIX: &str = "acct_";
/// The prefix of keys. No name may begin with it: a key in the wrong place becomes no name.
const KEY_PREFIX: &str = "sk_";
const NAME_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    /// Top-ups and promo credit, less charges and expired promo credit. Includes what open requests hold.
    pub posted: Nanos,
    /// The part of `posted` that open requests hold.
    pub held: Nanos,
    /// The most that a new request can hold: `posted + credit_limit - held`.
    pub available: Nanos,
    /// The part of `available` that is promo credit.
    pub promo: Nanos,
    /// How far below zero the cash may go.
    pub credit_limit: Nanos,
    /// The threshold of `balance.low`. Compared to `posted + credit_limit`, so open holds count as still there.
    pub low_balance: Option<Nanos>,
    /// Set by an administrator; `None` if the top-ups decide.
    pub tier: Option<Tier>,
    /// Without any limit set, those of the tier apply.
    pub limits: Quotas,
    /// Limits for single models; limit by limit they go before those for all models.
    pub model_limits: ModelQuotas,
    pub suspended: Option<Suspension>,
    pub created_at: Timestamp,
    /// When the account was deleted. A deleted account can't be used; its records stay.
    pub deleted_at: Option<Timestamp>,
}

/// Requests of a suspended account are refused; running ones finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    pub since: Timestamp,
    pub reason: String,
}

/// A name is 1 to 64 letters, digits and `.` `_` `-` `@` `+`, and begins with a letter or digit: it
/// needs no quotes in a shell, and can't be taken for an option or an id.
fn check_name(name: &str) -> Result<(), AdminError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    let good = name.len() <= NAME_MAX
        && name.bytes().all(allowed)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && !name.starts_with(ID_PREFIX)
        && !name.starts_with(KEY_PREFIX);
    if good {
        return Ok(());
    }
    let message = format!(
        "an account's name has 1 to {NAME_MAX} letters, digits and . _ - @ +, begins with a letter or digit, \
         and not with {ID_PREFIX} or {KEY_PREFIX}"
    );
    Err(AdminError::invalid("name", message))
}

/// The columns that [`read`] reads.
macro_rules! columns {
    () => {
        "account.id, account.name, balance.posted, balance.held, balance.posted + balance.credit_limit - balance.held,
         account.created_at, balance.promo, balance.credit_limit, balance.low_balance, account.tier,
         account.requests_per_minute, account.tokens_per_minute, account.concurrent_requests,
         account.suspended_at, account.suspended_reason, account.model_limits, account.deleted_at"
    };
}
pub(crate) use columns;

/// All accounts, by name.
pub(crate) async fn list(readers: &Readers) -> Result<Vec<Account>, StoreError> {
    let rows = readers
        .rows(
            concat!(
                "SELECT ",
                columns!(),
                " FROM account JOIN balance ON balance.account = account.id ORDER BY account.name"
            ),
            &[],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// Accounts after this name, by name.
pub(crate) async fn after(
    readers: &Readers,
    name: &str,
    limit: u32,
) -> Result<Vec<Account>, StoreError> {
    let rows = readers
        .rows(
            concat!(
                "SELECT ",
                columns!(),
                " FROM account JOIN balance ON balance.account = account.id WHERE account.name > $1
                 ORDER BY account.name LIMIT $2"
            ),
            values![name, i64::from(limit.min(PAGE_MAX))],
        )
        .await?;
    rows.iter().map(read).collect()
}

pub(crate) async fn find(readers: &Readers, name_or_id: &str) -> Result<Account, AdminError> {
    let row = readers
        .row(
            concat!(
                "SELECT ",
                columns!(),
                " FROM account JOIN balance ON balance.account = account.id WHERE account.id = $1 OR account.name = $1"
            ),
            values![name_or_id],
        )
        .await?;
    match row {
        Some(row) => Ok(read(&row)?),
        None => Err(AdminError::NotFound {
            what: "account",
            name: name_or_id.to_owned(),
        }),
    }
}

pub(crate) fn read(row: &Row) -> Result<Account, StoreError> {
    let suspended = row.time_or_null(13)?.map(|since| {
        let reason = row.text_or_null(14)?.unwrap_or_default();
        Ok::<_, StoreError>(Suspension { since, reason })
    });
    Ok(Account {
        id: AccountId::from(row.text(0)?),
        name: row.text(1)?,
        posted: row.nanos(2)?,
        held: row.nanos(3)?,
        available: row.nanos(4)?,
        promo: row.nanos(6)?,
        credit_limit: row.nanos(7)?,
        low_balance: row.integer_or_null(8)?.map(Nanos::new),
        tier: quotas::tier(row, 9)?,
        limits: Quotas::read(row, 10)?,
        model_limits: ModelQuotas::read(row, 15)?,
        suspended: suspended.transpose()?,
        created_at: row.time(5)?,
        deleted_at: row.time_or_null(16)?,
    })
}

/// The refusal of an act, if the account was deleted.
pub(crate) async fn deleted(
    connection: &mut Connection,
    account: &AccountId,
) -> Result<Option<AdminError>, StoreError> {
    let sql = "SELECT 1 FROM account WHERE id = $1 AND deleted_at IS NOT NULL";
    let row = connection.row(sql, values![account.as_str()]).await?;
    Ok(row.map(|_| is_deleted(account)))
}

pub(crate) fn is_deleted(account: &AccountId) -> AdminError {
    AdminError::invalid("account", format!("the account {account} is deleted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quotes() {
        let check = |name: &str, good: bool| assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        for name in [
            "demo",
            "a",
            "0",
            "ada@example.org",
            "team-1.x_y+z",
            &"x".repeat(64),
        ] {
            check(name, true);
        }
        for name in [
            "",
            "-rf",
            ".",
            "two words",
            "naïve",
            "a/b",
            "a\n",
            "a\0",
            "acct_1",
            "sk_abc_DEF",
            "=1+1",
            &"x".repeat(65),
        ] {
            check(name, false);
        }
    }
}

//! Accounts: who holds a balance.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::key::random;
use crate::money::Nanos;
use crate::writer::{Operation, Written};

/// What ids begin with, so that no name looks like one.
const ID_PREFIX: &str = "acct_";
const ID_LEN: usize = 12;
const NAME_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for AccountId {
    fn from(id: String) -> Self {
        AccountId(id.into())
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub name: String,
    /// What was paid in, less what was charged.
    pub posted: Nanos,
    /// The part of it that open requests hold.
    pub held: Nanos,
    /// What a new request can hold.
    pub available: Nanos,
    pub created_at: Timestamp,
}

/// Why an administrative act was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdminError {
    #[error("there is no {what} {name:?}")]
    NotFound { what: &'static str, name: String },
    #[error("there is an account named {0:?} already")]
    NameTaken(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the idempotency key {0:?} was used for something else")]
    IdempotencyConflict(String),
    #[error(transparent)]
    Store(#[from] StoreError),
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
        && !name.starts_with(ID_PREFIX);
    if good {
        return Ok(());
    }
    Err(AdminError::Invalid(format!(
        "an account's name has 1 to {NAME_MAX} letters, digits and . _ - @ +, begins with a letter or digit, \
         and not with {ID_PREFIX}"
    )))
}

#[derive(Debug)]
pub(crate) struct AddAccount {
    id: AccountId,
    name: String,
    now: Timestamp,
}

impl AddAccount {
    pub(crate) fn new(name: &str, now: Timestamp) -> Result<Self, AdminError> {
        check_name(name)?;
        let id = AccountId::from(format!("{ID_PREFIX}{}", random(ID_LEN)));
        Ok(AddAccount {
            id,
            name: name.to_owned(),
            now,
        })
    }
}

impl Operation for AddAccount {
    type Done = ();
    type Refused = ();
    type Answer = Result<Account, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> Written<(), ()> {
        let made = connection
            .row(
                "INSERT INTO account (id, name, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO NOTHING RETURNING id",
                values![self.id.as_str(), self.name.as_str(), self.now],
            )
            .await?;
        if made.is_none() {
            return Ok(Err(()));
        }
        connection
            .execute(
                "INSERT INTO balance (account) VALUES ($1)",
                values![self.id.as_str()],
            )
            .await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: Written<(), ()>) -> Result<Account, AdminError> {
        outcome?.map_err(|()| AdminError::NameTaken(self.name.clone()))?;
        Ok(Account {
            id: self.id,
            name: self.name,
            posted: Nanos::ZERO,
            held: Nanos::ZERO,
            available: Nanos::ZERO,
            created_at: self.now,
        })
    }
}

/// All accounts, by name.
pub(crate) async fn list(readers: &Readers) -> Result<Vec<Account>, StoreError> {
    let rows = readers
        .rows(
            "SELECT a.id, a.name, b.posted, b.held, b.posted + b.credit_limit - b.held, a.created_at
             FROM account a JOIN balance b ON b.account = a.id ORDER BY a.name",
            &[],
        )
        .await?;
    rows.iter().map(read).collect()
}

pub(crate) async fn find(readers: &Readers, name_or_id: &str) -> Result<Account, AdminError> {
    let row = readers
        .row(
            "SELECT a.id, a.name, b.posted, b.held, b.posted + b.credit_limit - b.held, a.created_at
             FROM account a JOIN balance b ON b.account = a.id WHERE a.id = $1 OR a.name = $1",
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

fn read(row: &Row) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId::from(row.text(0)?),
        name: row.text(1)?,
        posted: row.nanos(2)?,
        held: row.nanos(3)?,
        available: row.nanos(4)?,
        created_at: row.time(5)?,
    })
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
            "=1+1",
            &"x".repeat(65),
        ] {
            check(name, false);
        }
    }
}

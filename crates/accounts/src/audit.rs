//! The audit log: who did what to which account or key, and what it was before and after.
//!
//! It is written in the transaction of the act, so that there is no act without its record.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::db::{Connection, Readers, Row, StoreError, values};
use crate::ids::{AccountId, KeyId};
use crate::page::Page;
use crate::text::misleads;

/// The longest user name, in characters; the rest is cut off.
const USER_MAX: usize = 64;

/// Who acts: `system`, `cli:<user>` or `key:<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Arc<str>);

impl Actor {
    /// The server itself.
    pub fn system() -> Self {
        Actor("system".into())
    }

    /// A user of the command line.
    pub fn command_line(user: &str) -> Self {
        let plain = user.chars().filter(|letter| !misleads(*letter));
        let user: String = plain.take(USER_MAX).collect();
        Actor(format!("cli:{user}").into())
    }

    pub fn key(id: &KeyId) -> Self {
        Actor(format!("key:{id}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The actor of an act, and its time. A time alone makes it the system's own act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub actor: Actor,
    pub now: Timestamp,
}

impl From<Timestamp> for By {
    fn from(now: Timestamp) -> Self {
        let actor = Actor::system();
        By { actor, now }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    /// The act, such as `account.update` or `key.rotate`.
    pub act: String,
    pub account: AccountId,
    /// The id of what was changed: an account, a key or a transaction.
    pub target: String,
    /// The members that the act changed, as a JSON object: before…
    pub old: Option<String>,
    /// …and after.
    pub new: Option<String>,
}

/// An act to be recorded.
#[derive(Debug)]
pub(crate) struct Act<'a> {
    pub(crate) name: &'static str,
    pub(crate) account: &'a AccountId,
    pub(crate) target: &'a str,
    /// JSON objects. Only the members in which they differ are written.
    pub(crate) old: Value,
    pub(crate) new: Value,
}

/// Writes an audit record.
pub(crate) async fn record(
    connection: &mut Connection,
    by: &By,
    act: &Act<'_>,
) -> Result<(), StoreError> {
    let (old, new) = (differing(&act.old, &act.new), differing(&act.new, &act.old));
    connection
        .execute(
            "INSERT INTO audit (created_at, actor, act, account, target, old_state, new_state)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            values![
                by.now,
                by.actor.as_str(),
                act.name,
                act.account.as_str(),
                act.target,
                old.as_deref(),
                new.as_deref(),
            ],
        )
        .await
}

/// The members of `one` that `other` lacks or has with another value.
fn differing(one: &Value, other: &Value) -> Option<String> {
    let members = one.as_object()?.iter();
    let differing = members.filter(|(name, value)| other.get(name) != Some(value));
    let object: Map<_, _> = differing
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Some(Value::Object(object).to_string())
}

/// A page of audit records, newest first; of one account, or of all.
pub(crate) async fn page(
    readers: &Readers,
    account: Option<&AccountId>,
    page: Page,
) -> Result<Vec<AuditRecord>, StoreError> {
    let [before, limit] = page.bounds();
    let rows = match account {
        None => {
            let sql = "SELECT id, created_at, actor, act, account, target, old_state, new_state FROM audit
                 WHERE id < $1 ORDER BY id DESC LIMIT $2";
            readers.rows(sql, values![before, limit]).await?
        }
        Some(account) => {
            let sql = "SELECT id, created_at, actor, act, account, target, old_state, new_state FROM audit
                 WHERE account = $3 AND id < $1 ORDER BY id DESC LIMIT $2";
            let values = values![before, limit, account.as_str()];
            readers.rows(sql, values).await?
        }
    };
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        id: row.integer(0)?,
        at: row.time(1)?,
        actor: row.text(2)?,
        act: row.text(3)?,
        account: AccountId::from(row.text(4)?),
        target: row.text(5)?,
        old: row.text_or_null(6)?,
        new: row.text_or_null(7)?,
    })
}

//! What others are told of: events, written in the transaction of what happened, a row for each webhook that
//! wants to know. What nobody wants to know isn't written.
//!
//! Whoever lowers what an account has asks for `credit_limit, low_balance, low_day` in the same statement, and
//! hands them to [`LowBalance`]: as long as there is enough, that is no statement more.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::account::AccountId;
use crate::db::{Connection, Row, StoreError, values};
use crate::key::cap::day;
use crate::key::{KeyId, KeyRole};
use crate::ledger::checked;
use crate::money::Nanos;

/// Bytes of a hash that make an event's id.
const ID_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// What an account has left fell below its threshold.
    BalanceLow,
    /// A request was refused because the balance doesn't cover it, or gets no more than the rest of it pays for.
    BalanceExhausted,
    /// An account paid in.
    CreditAdded,
    KeyCreated,
}

impl EventKind {
    pub const ALL: [EventKind; 4] = [
        EventKind::BalanceLow,
        EventKind::BalanceExhausted,
        EventKind::CreditAdded,
        EventKind::KeyCreated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            EventKind::BalanceLow => "balance.low",
            EventKind::BalanceExhausted => "balance.exhausted",
            EventKind::CreditAdded => "credit.added",
            EventKind::KeyCreated => "key.created",
        }
    }
}

/// What happened to an account. Never a secret.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    BalanceLow {
        balance: Nanos,
        credit_limit: Nanos,
        low_balance: Nanos,
    },
    BalanceExhausted {
        balance: Nanos,
        credit_limit: Nanos,
        held: Nanos,
    },
    CreditAdded {
        amount: Nanos,
        /// Right after.
        balance: Nanos,
        transaction: i64,
    },
    KeyCreated {
        key: &'a KeyId,
        name: Option<&'a str>,
        role: KeyRole,
    },
}

impl Event<'_> {
    fn kind(&self) -> EventKind {
        match self {
            Event::BalanceLow { .. } => EventKind::BalanceLow,
            Event::BalanceExhausted { .. } => EventKind::BalanceExhausted,
            Event::CreditAdded { .. } => EventKind::CreditAdded,
            Event::KeyCreated { .. } => EventKind::KeyCreated,
        }
    }

    /// Amounts are texts of USD: a number would lose nanos in most receivers.
    fn facts(&self) -> Value {
        match self {
            Event::BalanceLow {
                balance,
                credit_limit,
                low_balance,
            } => json!({
                "balance": balance.to_string(),
                "credit_limit": credit_limit.to_string(),
                "low_balance": low_balance.to_string(),
            }),
            Event::BalanceExhausted {
                balance,
                credit_limit,
                held,
            } => json!({
                "balance": balance.to_string(),
                "credit_limit": credit_limit.to_string(),
                "held": held.to_string(),
            }),
            Event::CreditAdded {
                amount,
                balance,
                transaction,
            } => json!({
                "amount": amount.to_string(),
                "balance": balance.to_string(),
                "transaction": transaction,
            }),
            Event::KeyCreated { key, name, role } => json!({
                "key": key.as_str(),
                "key_name": name,
                "role": role.name(),
            }),
        }
    }
}

/// Writes an event of an account for every webhook that wants it.
pub(crate) async fn write(
    connection: &mut Connection,
    account: &AccountId,
    event: &Event<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let kind = event.kind().name();
    let wanted = connection
        .row(
            "SELECT name FROM account WHERE id = $1 AND EXISTS (SELECT 1 FROM webhook WHERE kind = $2)",
            values![account.as_str(), kind],
        )
        .await?;
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let mut data = json!({"account": account.as_str(), "account_name": wanted.text(0)?});
    if let (Some(data), Value::Object(facts)) = (data.as_object_mut(), event.facts()) {
        data.extend(facts);
    }
    let body = json!({"type": kind, "timestamp": now.to_string(), "data": data}).to_string();
    connection
        .execute(
            "INSERT INTO delivery (webhook, kind, event, body, attempts, next_at, created_at)
             SELECT name, kind, $2, $3, 0, $4, $4 FROM webhook WHERE kind = $1",
            values![kind, id(&body).as_str(), body.as_str(), now],
        )
        .await
}

/// The same when a transaction runs once more; another one for anything else that happens.
fn id(body: &str) -> String {
    let hash = Sha256::digest(body.as_bytes());
    let mut id = "evt_".to_owned();
    for byte in hash.iter().take(ID_BYTES) {
        write!(id, "{byte:02x}").expect("a text takes everything");
    }
    id
}

/// When to say that an account has little left, as its balance's row has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowBalance {
    credit_limit: Nanos,
    threshold: Option<Nanos>,
    told: Option<i64>,
}

impl LowBalance {
    /// Of a row with `credit_limit, low_balance, low_day` in these columns.
    pub(crate) fn read(row: &Row, columns: [usize; 3]) -> Result<Self, StoreError> {
        let [credit_limit, threshold, told] = columns;
        Ok(LowBalance {
            credit_limit: row.nanos(credit_limit)?,
            threshold: row.integer_or_null(threshold)?.map(Nanos::new),
            told: row.integer_or_null(told)?,
        })
    }

    pub(crate) fn credit_limit(&self) -> Nanos {
        self.credit_limit
    }

    pub(crate) fn is_to_tell(&self, posted: Nanos, now: Timestamp) -> Result<bool, StoreError> {
        let left = checked(posted.checked_add(self.credit_limit))?;
        Ok(self.threshold.is_some_and(|low_balance| left < low_balance)
            && self.told != Some(day(now)))
    }

    /// Tells once a UTC day that what is left is less than the account wants to have. What open requests hold
    /// is still there: most of it comes back. The balance's row must be locked.
    pub(crate) async fn tell(
        self,
        connection: &mut Connection,
        account: &AccountId,
        posted: Nanos,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(low_balance) = self.threshold else {
            return Ok(());
        };
        if !self.is_to_tell(posted, now)? {
            return Ok(());
        }
        let today = day(now);
        let sql = "UPDATE balance SET low_day = $2 WHERE account = $1";
        connection
            .execute(sql, values![account.as_str(), today])
            .await?;
        let event = Event::BalanceLow {
            balance: posted,
            credit_limit: self.credit_limit,
            low_balance,
        };
        write(connection, account, &event, now).await
    }
}

/// Tells once a UTC day that an account's balance didn't cover a request.
pub(crate) async fn exhausted(
    connection: &mut Connection,
    account: &AccountId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let row = connection
        .row(
            "UPDATE balance SET exhausted_day = $2 WHERE account = $1 AND (exhausted_day IS NULL OR exhausted_day <> $2)
             RETURNING posted, credit_limit, held",
            values![account.as_str(), day(now)],
        )
        .await?;
    let Some(row) = row else {
        return Ok(());
    };
    let event = Event::BalanceExhausted {
        balance: row.nanos(0)?,
        credit_limit: row.nanos(1)?,
        held: row.nanos(2)?,
    };
    write(connection, account, &event, now).await
}

//! Events, of which webhooks are told. An event is written in the transaction of what happened, as one row of the
//! outbox for each webhook that subscribes to its kind. Without subscribers nothing is written.
//!
//! Code that lowers a balance reads `credit_limit, low_balance, low_day` in the same statement, and passes them to
//! [`LowBalance`]: as long as the balance isn't low, that costs no further statement.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::db::{Connection, Row, StoreError, values};
use crate::ids::{AccountId, KeyId};
use crate::key::KeyRole;
use crate::ledger::checked;
use crate::money::Nanos;
use crate::utc_day::day;

/// The number of hash bytes in an event's id.
const ID_BYTES: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// An account's balance plus credit limit fell below its threshold.
    BalanceLow,
    /// A request was refused because the balance doesn't cover it, or was cut short where the balance ended.
    BalanceExhausted,
    /// An account was topped up.
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

/// An event of an account, with its data. Never contains a secret.
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
        /// The posted balance right after the top-up.
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

    /// The event's data. Amounts are texts of USD: most receivers would lose nanos of a JSON number.
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

/// Writes an event of an account for every webhook that subscribes to its kind.
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

/// The event's id, a hash of its body: the same when a transaction runs once more, another one for every other event.
fn id(body: &str) -> String {
    let hash = Sha256::digest(body.as_bytes());
    let mut id = "evt_".to_owned();
    for byte in hash.iter().take(ID_BYTES) {
        write!(id, "{byte:02x}").expect("a text takes everything");
    }
    id
}

/// An account's low-balance threshold, and the UTC day on which its webhooks were last told, from its balance's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowBalance {
    credit_limit: Nanos,
    threshold: Option<Nanos>,
    told: Option<i64>,
}

impl LowBalance {
    /// Reads `credit_limit, low_balance, low_day` from these columns of a row.
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

    /// Writes `balance.low` if the balance is below the threshold, once per UTC day. Money that open requests hold
    /// counts as still there, as most of it comes back. The balance's row must be locked.
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

/// Writes `balance.exhausted`, once per UTC day: the account's balance didn't cover a request.
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

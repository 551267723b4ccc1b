//! The ledger: append-only, double entry, every transaction sums to zero.
//!
//! | transaction | wallet | promo | held | revenue | funding | promotion | adjustment |
//! |---|---|---|---|---|---|---|---|
//! | credit | + amount | | | | − amount | | |
//! | promo | | + amount | | | | − amount | |
//! | hold, extend | − cash | − promo | + amount | | | | |
//! | settle | + cash − cash cost | + promo − promo cost − expired | − amount | + cost | | + expired | |
//! | late | − amount | | | + amount | | | |
//! | release | + cash | + promo − expired | − amount | | | + expired | |
//! | promo_expired | | − amount | | | | + amount | |
//! | refund | + cash | + promo | | − amount | | | |
//! | adjustment | ± amount | | | | | | ∓ amount |
//!
//! An account's balance row follows in the same database transaction: `posted` is wallet + promo + held,
//! `held` is held, `promo` is promo, and what is available is wallet + promo + credit limit.

pub(crate) mod batch;
pub(crate) mod checkpoints;
pub(crate) mod end;
pub(crate) mod ending;
pub(crate) mod extend;
pub(crate) mod hold;
pub(crate) mod key_caps;
pub(crate) mod late;
pub(crate) mod list;
pub(crate) mod movement;
pub(crate) mod notices;
pub(crate) mod promo;
pub(crate) mod recover;
pub(crate) mod replay;
pub(crate) mod reserve;
pub(crate) mod settle;
pub(crate) mod settlement;
pub(crate) mod take;
pub(crate) mod top_up;
pub(crate) mod verify;
pub(crate) mod writes;

use jiff::Timestamp;

use crate::db::{Connection, StoreError, Value, values};
use crate::ids::AccountId;
use crate::money::Nanos;

/// The books of the double-entry ledger. Top-ups come from funding, charges go to revenue, promo credit comes from
/// promotion.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Book<'a> {
    Wallet(&'a AccountId),
    /// Promo credit that no hold has taken.
    Promo(&'a AccountId),
    Held(&'a AccountId),
    Revenue,
    Funding,
    /// Lowered by promo credit that is given, raised by what of it expires.
    Promotion,
    Adjustment,
}

impl Book<'_> {
    fn name(self) -> String {
        match self {
            Book::Wallet(account) => format!("wallet:{account}"),
            Book::Held(account) => format!("held:{account}"),
            Book::Promo(account) => format!("promo:{account}"),
            Book::Revenue => "revenue".to_owned(),
            Book::Funding => "funding".to_owned(),
            Book::Promotion => "promotion".to_owned(),
            Book::Adjustment => "adjustment".to_owned(),
        }
    }
}

/// A transaction of the ledger, as it is written for every movement of money.
#[derive(Debug)]
pub(crate) struct Posting<'a> {
    pub(crate) kind: &'static str,
    pub(crate) idempotency_key: &'a str,
    pub(crate) account: &'a AccountId,
    pub(crate) hold: Option<i64>,
    pub(crate) reason: Option<&'a str>,
    /// The account's posted balance right after the transaction.
    pub(crate) posted: Nanos,
    pub(crate) now: Timestamp,
    pub(crate) entries: &'a [(Book<'a>, Nanos)],
}

/// Writes a transaction and its entries, and returns its id. `None` if its idempotency key has been used: the caller
/// then undoes its changes.
pub(crate) async fn post(
    connection: &mut Connection,
    posting: &Posting<'_>,
) -> Result<Option<i64>, StoreError> {
    let sum = posting
        .entries
        .iter()
        .try_fold(Nanos::ZERO, |sum, (_, amount)| sum.checked_add(*amount));
    if sum != Some(Nanos::ZERO) {
        let key = posting.idempotency_key;
        return Err(StoreError::contradiction(format!(
            "the entries of {key} don't sum to zero"
        )));
    }
    let written = connection
        .row(
            "INSERT INTO ledger_transaction (idempotency_key, kind, account, hold, reason, posted, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
            values![
                posting.idempotency_key,
                posting.kind,
                posting.account.as_str(),
                posting.hold,
                posting.reason,
                posting.posted,
                posting.now,
            ],
        )
        .await?;
    let Some(written) = written else {
        return Ok(None);
    };
    let id = written.integer(0)?;
    let moved = posting.entries.iter();
    let moved: Vec<_> = moved.filter(|(_, amount)| *amount != Nanos::ZERO).collect();
    enter(connection, id, &moved).await?;
    Ok(Some(id))
}

/// Writes the entries of a transaction, usually two or three, with up to three in a statement.
async fn enter(
    connection: &mut Connection,
    transaction: i64,
    entries: &[&(Book<'_>, Nanos)],
) -> Result<(), StoreError> {
    const ONE: &str = "INSERT INTO entry (ledger_transaction, book, amount) VALUES ($1, $2, $3)";
    const TWO: &str =
        "INSERT INTO entry (ledger_transaction, book, amount) VALUES ($1, $2, $3), ($1, $4, $5)";
    const THREE: &str = "INSERT INTO entry (ledger_transaction, book, amount) VALUES ($1, $2, $3), ($1, $4, $5), ($1, $6, $7)";
    for entries in entries.chunks(3) {
        let names: Vec<_> = entries.iter().map(|(book, _)| book.name()).collect();
        let mut values = vec![Value::from(transaction)];
        for (name, (_, amount)) in names.iter().zip(entries) {
            values.extend([Value::from(name.as_str()), Value::from(*amount)]);
        }
        let sql = match entries.len() {
            1 => ONE,
            2 => TWO,
            _ => THREE,
        };
        connection.execute(sql, &values).await?;
    }
    Ok(())
}

pub(crate) fn checked(amount: Option<Nanos>) -> Result<Nanos, StoreError> {
    amount.ok_or_else(|| StoreError::contradiction("an amount is too large to count"))
}

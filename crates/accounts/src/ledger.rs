//! The ledger: append-only, double entry, every transaction sums to zero.
//!
//! | transaction | wallet | held | revenue | funding |
//! |---|---|---|---|---|
//! | credit | + amount | | | − amount |
//! | hold, extend | − amount | + amount | | |
//! | settle | + amount − cost | − amount | + cost | |
//! | release | + amount | − amount | | |
//!
//! An account's balance row follows in the same database transaction: `posted` is wallet + held,
//! `held` is held, and what is available is the wallet.

pub(crate) mod hold;
pub(crate) mod notices;
pub(crate) mod settle;
pub(crate) mod top_up;
pub(crate) mod verify;

use jiff::Timestamp;

use crate::account::{AccountId, AdminError};
use crate::db::{Connection, StoreError, values};
use crate::money::Nanos;
use crate::writer::{Operation, Written};

/// Idempotency keys and reasons are short.
const TEXT_MAX: usize = 256;

/// Accounts of the books. Money that comes in comes from funding, money earned goes to revenue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Book<'a> {
    Wallet(&'a AccountId),
    Held(&'a AccountId),
    Revenue,
    Funding,
}

impl Book<'_> {
    fn name(self) -> String {
        match self {
            Book::Wallet(account) => format!("wallet:{account}"),
            Book::Held(account) => format!("held:{account}"),
            Book::Revenue => "revenue".to_owned(),
            Book::Funding => "funding".to_owned(),
        }
    }
}

/// What is written for every movement of money.
#[derive(Debug)]
pub(crate) struct Posting<'a> {
    pub(crate) kind: &'static str,
    pub(crate) idempotency_key: &'a str,
    pub(crate) account: &'a AccountId,
    pub(crate) hold: Option<i64>,
    pub(crate) reason: Option<&'a str>,
    /// The account's, right after.
    pub(crate) posted: Nanos,
    pub(crate) now: Timestamp,
    pub(crate) entries: &'a [(Book<'a>, Nanos)],
}

/// Writes a transaction and its entries. `None` if its idempotency key has been used: the caller
/// then undoes what it did.
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
    for (book, amount) in posting
        .entries
        .iter()
        .filter(|(_, amount)| *amount != Nanos::ZERO)
    {
        connection
            .execute(
                "INSERT INTO entry (ledger_transaction, book, amount) VALUES ($1, $2, $3)",
                values![id, book.name().as_str(), *amount],
            )
            .await?;
    }
    Ok(Some(id))
}

pub(crate) fn checked(amount: Option<Nanos>) -> Result<Nanos, StoreError> {
    amount.ok_or_else(|| StoreError::contradiction("an amount is too large to count"))
}

/// A credit, as it was first made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credited {
    pub account: AccountId,
    pub amount: Nanos,
    /// The account's balance right after it.
    pub posted: Nanos,
    pub at: Timestamp,
    /// Whether the idempotency key had been used before, so that nothing was done now.
    pub replayed: bool,
}

#[derive(Debug)]
pub(crate) struct Credit {
    account: AccountId,
    amount: Nanos,
    idempotency_key: String,
    reason: String,
    now: Timestamp,
}

impl Credit {
    pub(crate) fn new(
        account: &AccountId,
        amount: Nanos,
        idempotency_key: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, AdminError> {
        if !amount.is_positive() {
            return Err(AdminError::Invalid(format!(
                "a credit must be more than 0, not {amount}"
            )));
        }
        if idempotency_key.is_empty() || idempotency_key.len() > TEXT_MAX || reason.len() > TEXT_MAX
        {
            let message = format!(
                "an idempotency key has 1 to {TEXT_MAX} bytes, a reason at most {TEXT_MAX}"
            );
            return Err(AdminError::Invalid(message));
        }
        Ok(Credit {
            account: account.clone(),
            amount,
            idempotency_key: format!("credit:{idempotency_key}"),
            reason: reason.to_owned(),
            now,
        })
    }

    /// What the idempotency key did when it was first used.
    async fn first(&self, connection: &mut Connection) -> Written<Credited, AdminError> {
        let row = connection
            .row(
                "SELECT t.posted, t.created_at FROM ledger_transaction t
                 JOIN entry e ON e.ledger_transaction = t.id AND e.book = $3
                 WHERE t.idempotency_key = $1 AND t.account = $2 AND e.amount = $4",
                values![
                    self.idempotency_key.as_str(),
                    self.account.as_str(),
                    Book::Wallet(&self.account).name().as_str(),
                    self.amount,
                ],
            )
            .await?;
        let Some(row) = row else {
            let key = self
                .idempotency_key
                .trim_start_matches("credit:")
                .to_owned();
            return Ok(Err(AdminError::IdempotencyConflict(key)));
        };
        Ok(Ok(Credited {
            account: self.account.clone(),
            amount: self.amount,
            posted: row.nanos(0)?,
            at: row.time(1)?,
            replayed: true,
        }))
    }

    /// Why the balance was not raised.
    async fn refusal(&self, connection: &mut Connection) -> Result<AdminError, StoreError> {
        let account = self.account.as_str();
        let row = connection
            .row(
                "SELECT posted FROM balance WHERE account = $1",
                values![account],
            )
            .await?;
        Ok(match row {
            Some(_) => AdminError::Invalid(format!("{} more is too large a balance", self.amount)),
            None => AdminError::NotFound {
                what: "account",
                name: account.to_owned(),
            },
        })
    }
}

impl Operation for Credit {
    type Done = Credited;
    type Refused = Result<Credited, AdminError>;
    type Answer = Result<Credited, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> Written<Credited, Self::Refused> {
        let room = checked(Nanos::MAX.checked_sub(self.amount))?;
        let raised = connection
            .row(
                "UPDATE balance SET posted = posted + $2 WHERE account = $1 AND posted <= $3 - credit_limit
                 RETURNING posted",
                values![self.account.as_str(), self.amount, room],
            )
            .await?;
        let Some(raised) = raised else {
            return Ok(Err(Err(self.refusal(connection).await?)));
        };
        let posted = raised.nanos(0)?;
        let posting = Posting {
            kind: "credit",
            idempotency_key: &self.idempotency_key,
            account: &self.account,
            hold: None,
            reason: Some(&self.reason),
            posted,
            now: self.now,
            entries: &[
                (Book::Funding, checked(self.amount.checked_neg())?),
                (Book::Wallet(&self.account), self.amount),
            ],
        };
        if post(connection, &posting).await?.is_none() {
            return Ok(Err(self.first(connection).await?));
        }
        let account = self.account.clone();
        Ok(Ok(Credited {
            account,
            amount: self.amount,
            posted,
            at: self.now,
            replayed: false,
        }))
    }

    fn answer(self, outcome: Written<Credited, Self::Refused>) -> Result<Credited, AdminError> {
        match outcome? {
            Ok(credited) => Ok(credited),
            Err(unchanged) => unchanged,
        }
    }
}

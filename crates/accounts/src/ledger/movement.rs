//! Movements of money that no request causes: top-ups, promo credit, refunds and adjustments. Each has a reason, an
//! actor, and an idempotency key: the same one again changes nothing and returns the first result.

mod refund;
mod transaction_kind;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::account::deleted;
use crate::audit::{Act, By, record};
use crate::clock;
use crate::db::{Connection, Row, StoreError, Value, values};
use crate::error::AdminError;
use crate::events::{self, Event, LowBalance};
use crate::ids::AccountId;
use crate::ledger::{Book, Posting, checked, post};
use crate::money::Nanos;
use crate::text::{PLAIN, is_plain};
use crate::writer::{Operation, TxResult};

pub(crate) use self::transaction_kind::TransactionKind;
pub use self::transaction_kind::{Adjustment, Moved, Promo, Refund};

/// The most characters of an idempotency key.
pub const IDEMPOTENCY_KEY_MAX: usize = 200;
/// The most characters of a reason.
const REASON_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Move {
    what: TransactionKind,
    /// Unique among the movements of an account, whatever their kind, from the API or the command line.
    idempotency_key: String,
    reason: String,
    by: By,
}

/// The parts of a movement that are written once the balance was changed.
#[derive(Debug)]
struct Done<'a> {
    account: &'a AccountId,
    amount: Nanos,
    /// The account's posted balance right after.
    posted: Nanos,
    entries: &'a [(Book<'a>, Nanos)],
    usage_record: Option<i64>,
}

impl Move {
    pub(crate) fn new(
        what: TransactionKind,
        idempotency_key: &str,
        reason: &str,
        by: By,
    ) -> Result<Self, AdminError> {
        what.check()?;
        check_idempotency_key(idempotency_key)?;
        check_reason(&what, reason)?;
        Ok(Move {
            idempotency_key: idempotency_key.to_owned(),
            what,
            reason: reason.to_owned(),
            by,
        })
    }

    /// The idempotency key, made unique among all accounts.
    fn unique_key(&self, account: &AccountId) -> String {
        format!("move:{account}:{}", self.idempotency_key)
    }

    /// The result of the first use of the idempotency key for the account, if there was one.
    async fn first(
        &self,
        connection: &mut Connection,
        account: &AccountId,
    ) -> TxResult<Option<Moved>, AdminError> {
        let mut keys = old_keys(&self.idempotency_key);
        keys.push(self.unique_key(account));
        let mut values = values![account.as_str()].to_vec();
        values.extend(keys.iter().map(|key| Value::from(key.as_str())));
        let row = connection
            .row(
                "SELECT t.id, t.posted, t.created_at, t.kind, m.asked, p.expires_at, u.request, u.attempt, t.reason,
                     (SELECT CAST(COALESCE(SUM(e.amount), 0) AS BIGINT) FROM entry e
                      WHERE e.ledger_transaction = t.id AND (e.book LIKE 'wallet:%' OR e.book LIKE 'promo:%'))
                 FROM ledger_transaction t
                 LEFT JOIN promo p ON p.ledger_transaction = t.id
                 LEFT JOIN movement m ON m.ledger_transaction = t.id
                 LEFT JOIN usage_record u ON u.id = m.usage_record
                 WHERE t.account = $1 AND t.idempotency_key IN ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                 ORDER BY t.id LIMIT 1",
                &values,
            )
            .await?;
        let Some(row) = row else {
            return Ok(Ok(None));
        };
        let moved = Moved {
            transaction: row.integer(0)?,
            account: account.clone(),
            amount: row.nanos(9)?,
            posted: row.nanos(1)?,
            at: row.time(2)?,
            replayed: true,
        };
        let same = match row.text_or_null(4)? {
            Some(asked) => asked == self.what.asked(),
            None => self.did(&row, moved.amount)?,
        };
        let reason = row.text_or_null(8)?.unwrap_or_default();
        Ok(match same && reason == self.reason {
            true => Ok(Some(moved)),
            false => Err(self.conflict()),
        })
    }

    /// Whether an old movement, written before requests were stored (`asked`), is the same as this one, by its effect.
    fn did(&self, row: &Row, amount: Nanos) -> Result<bool, StoreError> {
        let same_amount = self.what.amount().is_none_or(|asked| asked == amount);
        let same = match &self.what {
            TransactionKind::Credit { .. } | TransactionKind::Adjust { .. } => true,
            TransactionKind::Promo { expires_at, .. } => {
                let expiry = row.integer_or_null(5)?;
                expiry == Some(expires_at.after(self.by.now).as_millisecond())
            }
            TransactionKind::Refund {
                request, attempt, ..
            } => {
                let attempted = row.integer_or_null(7)?;
                row.text_or_null(6)?.as_ref() == Some(request)
                    && attempted == Some(i64::from(*attempt))
            }
        };
        Ok(same && same_amount && row.text(3)? == self.what.kind())
    }

    fn conflict(&self) -> AdminError {
        AdminError::IdempotencyConflict(self.idempotency_key.clone())
    }

    /// The account whose money is moved; `None` if there is no such request to refund.
    async fn whose(&self, connection: &mut Connection) -> Result<Option<AccountId>, StoreError> {
        match &self.what {
            TransactionKind::Credit { account, .. }
            | TransactionKind::Adjust { account, .. }
            | TransactionKind::Promo { account, .. } => Ok(Some(account.clone())),
            TransactionKind::Refund {
                request, attempt, ..
            } => refund::lock(connection, request, *attempt).await,
        }
    }

    fn no_such_request(&self) -> AdminError {
        let name = match &self.what {
            TransactionKind::Refund { request, .. } => request.clone(),
            TransactionKind::Credit { .. }
            | TransactionKind::Adjust { .. }
            | TransactionKind::Promo { .. } => String::new(),
        };
        AdminError::NotFound {
            what: "charged request",
            name,
        }
    }

    /// Writes the transaction, its actor and the audit record.
    async fn write(
        &self,
        connection: &mut Connection,
        done: Done<'_>,
    ) -> TxResult<Moved, AdminError> {
        let posting = Posting {
            kind: self.what.kind(),
            idempotency_key: &self.unique_key(done.account),
            account: done.account,
            hold: None,
            reason: Some(&self.reason),
            posted: done.posted,
            now: self.by.now,
            entries: done.entries,
        };
        let Some(transaction) = post(connection, &posting).await? else {
            // Another process has used the key since `first` looked.
            return Ok(Err(self.conflict()));
        };
        connection
            .execute(
                "INSERT INTO movement (ledger_transaction, actor, usage_record, asked) VALUES ($1, $2, $3, $4)",
                values![transaction, self.by.actor.as_str(), done.usage_record, self.what.asked().as_str()],
            )
            .await?;
        let before = checked(done.posted.checked_sub(done.amount))?;
        let act = Act {
            name: self.what.act(),
            account: done.account,
            target: &transaction.to_string(),
            old: json!({"balance": before.to_string()}),
            new: self.audited(&done),
        };
        record(connection, &self.by, &act).await?;
        Ok(Ok(Moved {
            transaction,
            account: done.account.clone(),
            amount: done.amount,
            posted: done.posted,
            at: self.by.now,
            replayed: false,
        }))
    }

    fn audited(&self, done: &Done<'_>) -> Json {
        let mut members = Map::new();
        let mut member = |name: &str, value: Json| members.insert(name.to_owned(), value);
        member("balance", done.posted.to_string().into());
        member("amount", done.amount.to_string().into());
        member("reason", self.reason.as_str().into());
        member("idempotency_key", self.idempotency_key.as_str().into());
        match &self.what {
            TransactionKind::Promo { expires_at, .. } => {
                let expires_at = expires_at.after(self.by.now);
                member("expires_at", expires_at.to_string().into());
            }
            TransactionKind::Refund {
                request, attempt, ..
            } => {
                member("request", request.as_str().into());
                member("attempt", (*attempt).into());
            }
            TransactionKind::Credit { .. } | TransactionKind::Adjust { .. } => {}
        }
        Json::Object(members)
    }

    /// Moves cash from a book of ours to the account's wallet, or back if `amount` is negative.
    async fn cash(
        &self,
        connection: &mut Connection,
        account: &AccountId,
        amount: Nanos,
        from: Book<'_>,
    ) -> TxResult<Moved, AdminError> {
        let Some(raised) = raise(connection, account, amount).await? else {
            return Ok(Err(refusal(connection, account, amount).await?));
        };
        let posted = raised.nanos(0)?;
        let entries = [
            (from, checked(amount.checked_neg())?),
            (Book::Wallet(account), amount),
        ];
        let done = Done {
            account,
            amount,
            posted,
            entries: &entries,
            usage_record: None,
        };
        let moved = match self.write(connection, done).await? {
            Ok(moved) => moved,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.tell(connection, &moved, &raised).await?;
        Ok(Ok(moved))
    }

    /// Writes the events: of a top-up, or of a balance that was lowered and is low now.
    async fn tell(
        &self,
        connection: &mut Connection,
        moved: &Moved,
        raised: &Row,
    ) -> Result<(), StoreError> {
        let (account, now) = (&moved.account, self.by.now);
        if let TransactionKind::Credit { .. } = self.what {
            let event = Event::CreditAdded {
                amount: moved.amount,
                balance: moved.posted,
                transaction: moved.transaction,
            };
            return events::write(connection, account, &event, now).await;
        }
        if moved.amount.is_negative() {
            let low = LowBalance::read(raised, [1, 2, 3])?;
            low.tell(connection, account, moved.posted, now).await?;
        }
        Ok(())
    }

    async fn promo(
        &self,
        connection: &mut Connection,
        account: &AccountId,
        amount: Nanos,
        expires_at: Timestamp,
    ) -> TxResult<Moved, AdminError> {
        let room = checked(Nanos::MAX.checked_sub(amount))?;
        let raised = connection
            .row(
                "UPDATE balance SET posted = posted + $2, promo = promo + $2,
                     promo_expires_at = CASE WHEN promo_expires_at <= $4 THEN promo_expires_at ELSE $4 END
                 WHERE account = $1 AND posted <= $3 - credit_limit RETURNING posted",
                values![account.as_str(), amount, room, expires_at],
            )
            .await?;
        let Some(raised) = raised else {
            return Ok(Err(refusal(connection, account, amount).await?));
        };
        let entries = [
            (Book::Promotion, checked(amount.checked_neg())?),
            (Book::Promo(account), amount),
        ];
        let done = Done {
            account,
            amount,
            posted: raised.nanos(0)?,
            entries: &entries,
            usage_record: None,
        };
        let moved = match self.write(connection, done).await? {
            Ok(moved) => moved,
            Err(refusal) => return Ok(Err(refusal)),
        };
        connection
            .execute(
                "INSERT INTO promo (account, ledger_transaction, amount, free, created_at, expires_at)
                 VALUES ($1, $2, $3, $3, $4, $5)",
                values![account.as_str(), moved.transaction, amount, self.by.now, expires_at],
            )
            .await?;
        Ok(Ok(moved))
    }
}

fn check_idempotency_key(key: &str) -> Result<(), AdminError> {
    let good = (1..=IDEMPOTENCY_KEY_MAX).contains(&key.chars().count()) && is_plain(key);
    let rule = || format!("1 to {IDEMPOTENCY_KEY_MAX} characters and {PLAIN}");
    good.then_some(())
        .ok_or_else(|| AdminError::BadIdempotencyKey(rule()))
}

/// A payment needs no reason; what is unusual does.
fn check_reason(what: &TransactionKind, reason: &str) -> Result<(), AdminError> {
    let least = usize::from(!matches!(what, TransactionKind::Credit { .. }));
    if (least..=REASON_MAX).contains(&reason.chars().count()) && is_plain(reason) {
        return Ok(());
    }
    let message = format!("a reason has {least} to {REASON_MAX} characters and {PLAIN}");
    Err(AdminError::invalid("reason", message))
}

/// The idempotency keys of old versions, which had a name space for each kind of movement and each way it came.
fn old_keys(key: &str) -> Vec<String> {
    let kinds = ["credit", "adjustment", "promo", "refund"];
    let mut keys = vec![format!("credit:credit:{key}")];
    for kind in kinds {
        keys.extend(["", "cli:", "api:"].map(|way| format!("{kind}:{way}{key}")));
    }
    keys
}

/// Changes the cash of a balance. `None` if the balance would be too large to count, or the credit limit doesn't cover
/// it. Promo credit covers nothing, as it may expire.
async fn raise(
    connection: &mut Connection,
    account: &AccountId,
    amount: Nanos,
) -> Result<Option<Row>, StoreError> {
    let room = Nanos::MAX.checked_sub(amount.max(Nanos::ZERO));
    connection
        .row(
            "UPDATE balance SET posted = posted + $2
             WHERE account = $1 AND posted <= $3 - credit_limit AND posted + credit_limit - held - promo + $2 >= 0
             RETURNING posted, credit_limit, low_balance, low_day",
            values![account.as_str(), amount, checked(room)?],
        )
        .await
}

/// Why a balance was not changed.
async fn refusal(
    connection: &mut Connection,
    account: &AccountId,
    amount: Nanos,
) -> Result<AdminError, StoreError> {
    let sql = "SELECT posted + credit_limit - held - promo FROM balance WHERE account = $1";
    let row = connection.row(sql, values![account.as_str()]).await?;
    let Some(row) = row else {
        return Ok(AdminError::NotFound {
            what: "account",
            name: account.to_string(),
        });
    };
    let available = row.nanos(0)?;
    let message = match amount.is_negative() {
        true => {
            format!("{amount} can't be taken: {available} USD of cash and credit are available")
        }
        false => format!("{amount} more is too large a balance"),
    };
    Ok(AdminError::invalid("amount", message))
}

impl Operation for Move {
    type Done = Moved;
    /// The first result, if this is a replay, or a refusal.
    type Refused = Result<Moved, AdminError>;
    type Answer = Result<Moved, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Moved, Self::Refused> {
        let Some(account) = self.whose(connection).await? else {
            return Ok(Err(Err(self.no_such_request())));
        };
        match self.first(connection, &account).await? {
            Ok(None) => {}
            Ok(Some(moved)) => return Ok(Err(Ok(moved))),
            Err(refusal) => return Ok(Err(Err(refusal))),
        }
        if let Some(account) = self.account()
            && let Some(deleted) = deleted(connection, account).await?
        {
            return Ok(Err(Err(deleted)));
        }
        let moved = match &self.what {
            TransactionKind::Credit { account, amount } => {
                self.cash(connection, account, *amount, Book::Funding)
                    .await?
            }
            TransactionKind::Adjust { account, amount } => {
                self.cash(connection, account, *amount, Book::Adjustment)
                    .await?
            }
            TransactionKind::Promo {
                account,
                amount,
                expires_at,
            } => {
                let now = self.by.now;
                let lapse = clock::lapse(connection, now).await?;
                let expires_at = match expires_at.checked("promotional credit", now, lapse) {
                    Ok(expires_at) => expires_at,
                    Err(refusal) => return Ok(Err(Err(refusal))),
                };
                self.promo(connection, account, *amount, expires_at).await?
            }
            TransactionKind::Refund {
                request,
                attempt,
                amount,
            } => {
                self.refund(connection, &account, request, *attempt, *amount)
                    .await?
            }
        };
        Ok(moved.map_err(Err))
    }

    fn account(&self) -> Option<&AccountId> {
        match &self.what {
            TransactionKind::Credit { account, .. }
            | TransactionKind::Adjust { account, .. }
            | TransactionKind::Promo { account, .. } => Some(account),
            TransactionKind::Refund { .. } => None,
        }
    }

    fn answer(self, outcome: TxResult<Moved, Self::Refused>) -> Result<Moved, AdminError> {
        match outcome? {
            Ok(moved) => Ok(moved),
            Err(unchanged) => unchanged,
        }
    }
}

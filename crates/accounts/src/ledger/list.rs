//! Pages of the ledger's transactions.

use jiff::Timestamp;

use crate::db::{Readers, Row, StoreError, values};
use crate::ids::AccountId;
use crate::money::Nanos;
use crate::page::Page;

/// A transaction and its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    pub id: i64,
    pub account: AccountId,
    pub at: Timestamp,
    /// The kind, such as `credit`, `hold` or `settle`.
    pub kind: String,
    pub reason: Option<String>,
    /// The actor of a movement; `None` if a request caused the transaction.
    pub actor: Option<String>,
    /// The request that caused the transaction, or that it refunds.
    pub request: Option<String>,
    /// The account's posted balance right after.
    pub posted: Nanos,
    /// Books and amounts, by book.
    pub entries: Vec<(String, Nanos)>,
}

/// The query that [`read`] reads from, where `t` are the transactions of a page.
macro_rules! joined {
    ($page:literal) => {
        concat!(
            "SELECT t.id, t.created_at, t.kind, t.reason, m.actor, COALESCE(h.request, u.request), t.posted, e.book, e.amount,
                 t.account
             FROM (SELECT id, created_at, kind, reason, hold, posted, account FROM ledger_transaction ",
            $page,
            ") t
             LEFT JOIN entry e ON e.ledger_transaction = t.id
             LEFT JOIN hold h ON h.id = t.hold
             LEFT JOIN movement m ON m.ledger_transaction = t.id
             LEFT JOIN usage_record u ON u.id = m.usage_record
             ORDER BY t.id DESC, e.book"
        )
    };
}

/// A page of an account's transactions, newest first.
pub(crate) async fn page(
    readers: &Readers,
    account: &AccountId,
    page: Page,
) -> Result<Vec<LedgerRecord>, StoreError> {
    let [before, limit] = page.bounds();
    let sql = joined!("WHERE account = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
    let values = values![account.as_str(), before, limit];
    records(&readers.rows(sql, values).await?)
}

/// A page of all accounts' transactions, newest first.
pub(crate) async fn page_of_all(
    readers: &Readers,
    page: Page,
) -> Result<Vec<LedgerRecord>, StoreError> {
    let [before, limit] = page.bounds();
    let sql = joined!("WHERE id < $1 ORDER BY id DESC LIMIT $2");
    records(&readers.rows(sql, values![before, limit]).await?)
}

fn records(rows: &[Row]) -> Result<Vec<LedgerRecord>, StoreError> {
    let mut records: Vec<LedgerRecord> = Vec::new();
    for row in rows {
        let id = row.integer(0)?;
        if records.last().is_none_or(|last| last.id != id) {
            records.push(read(row)?);
        }
        // A transaction that moved nothing, such as a hold of 0, has no entries.
        if let (Some(record), Some(book)) = (records.last_mut(), row.text_or_null(7)?) {
            record.entries.push((book, row.nanos(8)?));
        }
    }
    Ok(records)
}

fn read(row: &Row) -> Result<LedgerRecord, StoreError> {
    Ok(LedgerRecord {
        id: row.integer(0)?,
        account: AccountId::from(row.text(9)?),
        at: row.time(1)?,
        kind: row.text(2)?,
        reason: row.text_or_null(3)?,
        actor: row.text_or_null(4)?,
        request: row.text_or_null(5)?,
        posted: row.nanos(6)?,
        entries: Vec::new(),
    })
}

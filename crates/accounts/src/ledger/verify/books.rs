//! Entries against each other, and balances against the entries of their books.

use std::collections::BTreeMap;

use crate::db::{Connection, StoreError, values};
use crate::ledger::checked;
use crate::ledger::verify::compare::{Comparison, PIECE, compare, number, pieces};
use crate::money::Nanos;

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = unbalanced(connection).await?;
    differences.extend(empty(connection).await?);
    differences.extend(projections(connection).await?);
    differences.extend(compare(connection, &[LAST_POSTED]).await?);
    Ok(differences)
}

pub(super) const LAST_POSTED: Comparison = Comparison {
    sql: "SELECT b.account, b.posted, COALESCE((SELECT t.posted FROM ledger_transaction t
                 WHERE t.account = b.account ORDER BY t.id DESC LIMIT 1), 0)
          FROM balance b
          WHERE b.posted <> COALESCE((SELECT t.posted FROM ledger_transaction t
                 WHERE t.account = b.account ORDER BY t.id DESC LIMIT 1), 0)
          ORDER BY b.account",
    words: [
        "account",
        "the balance says that posted is",
        "its last transaction",
    ],
};

/// Transactions whose entries don't sum to zero.
async fn unbalanced(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT ledger_transaction, CAST(SUM(amount) AS BIGINT) FROM entry
             GROUP BY ledger_transaction HAVING SUM(amount) <> 0 ORDER BY ledger_transaction",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (transaction, sum) = (row.integer(0)?, row.nanos(1)?);
        differences.push(format!(
            "transaction {transaction}: its entries sum to {sum}, not 0"
        ));
    }
    Ok(differences)
}

/// Transactions without entries that belong to no hold: a hold of 0 has none, and other holds are compared to theirs.
async fn empty(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT t.id, t.kind FROM ledger_transaction t
             WHERE t.hold IS NULL AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.ledger_transaction = t.id)
             ORDER BY t.id",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (transaction, kind) = (row.integer(0)?, row.text(1)?);
        differences.push(format!(
            "transaction {transaction}: a {kind} without entries"
        ));
    }
    Ok(differences)
}

/// Balances that differ from the sums of the entries of their books, and books that belong to no account.
async fn projections(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut books = sums(connection).await?;
    let mut sum = |book: &str, account: &str| books.remove(&format!("{book}:{account}"));
    let mut differences = Vec::new();
    let sql = "SELECT account, posted, held, promo FROM balance ORDER BY account";
    for row in connection.rows(sql, &[]).await? {
        let (account, posted, held, promo) =
            (row.text(0)?, row.nanos(1)?, row.nanos(2)?, row.nanos(3)?);
        let wallet = sum("wallet", &account).unwrap_or_default();
        let in_hold = sum("held", &account).unwrap_or_default();
        let free = sum("promo", &account).unwrap_or_default();
        let cash = posted
            .checked_sub(held)
            .and_then(|rest| rest.checked_sub(promo));
        if cash != Some(wallet) || held != in_hold {
            differences.push(format!(
                "account {account}: the balance says {posted} posted and {held} held, the entries {wallet} in the wallet and {in_hold} held"
            ));
        }
        if promo != free {
            differences.push(format!(
                "account {account}: the balance says it has promotional credit of {promo}, the entries {free}"
            ));
        }
    }
    let nobodys = books.into_iter().filter(|(_, sum)| *sum != Nanos::ZERO);
    differences.extend(nobodys.map(|(book, sum)| {
        format!("book {book}: its entries sum to {sum}, and it is no account's")
    }));
    Ok(differences)
}

/// Transactions for each account in a range: with fewer, a range has as many sums as entries, and all are sent.
const OF_EACH_ACCOUNT: i64 = 20;

/// The sums of the entries of each account's books.
async fn sums(connection: &mut Connection) -> Result<BTreeMap<String, Nanos>, StoreError> {
    let last = number(
        connection,
        "SELECT COALESCE(MAX(ledger_transaction), 0) FROM entry",
    )
    .await?;
    let accounts = number(connection, "SELECT COUNT(*) FROM balance").await?;
    let piece = accounts.saturating_mul(OF_EACH_ACCOUNT).max(PIECE);
    let mut books = BTreeMap::new();
    for (after, up_to) in pieces(last, piece) {
        let rows = connection
            .rows(
                "SELECT book, CAST(SUM(amount) AS BIGINT) FROM entry
                 WHERE ledger_transaction > $1 AND ledger_transaction <= $2
                     AND book NOT IN ('revenue', 'funding', 'promotion', 'adjustment')
                 GROUP BY book",
                values![after, up_to],
            )
            .await?;
        for row in rows {
            let sum: &mut Nanos = books.entry(row.text(0)?).or_default();
            *sum = checked(sum.checked_add(row.nanos(1)?))?;
        }
    }
    Ok(books)
}

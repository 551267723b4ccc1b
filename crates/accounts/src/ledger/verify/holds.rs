//! Holds against the transactions that open, extend and end them.

use std::collections::BTreeMap;

use crate::db::{Connection, StoreError, values};
use crate::ledger::checked;
use crate::ledger::verify::compare::{Comparison, PIECE, compare, number, pieces};
use crate::money::Nanos;

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = compare(connection, &[OPEN]).await?;
    differences.extend(amounts(connection).await?);
    differences.extend(ends(connection).await?);
    if !differences.is_empty() || counts_differ(connection).await? {
        differences.extend(missing(connection).await?);
    }
    Ok(differences)
}

/// Accounts whose held balance is not what their open holds sum to.
pub(super) const OPEN: Comparison = Comparison {
    sql: "SELECT b.account, b.held, COALESCE(h.sum, 0)
          FROM balance b
          LEFT JOIN (SELECT account, CAST(SUM(amount) AS BIGINT) AS sum FROM hold WHERE state = 'open' GROUP BY account) h
              ON h.account = b.account
          WHERE b.held <> COALESCE(h.sum, 0) ORDER BY b.account",
    words: ["account", "the balance says that held is", "its open holds"],
};

/// The amounts that were taken for a hold, as far as they are summed up.
#[derive(Debug, Default)]
struct Taken {
    request: String,
    amount: Nanos,
    sum: Nanos,
}

/// Holds whose amount is not the sum of what was taken for them. Most are never extended, and are compared in the
/// database; of the others only those are fetched that were extended in another range.
async fn amounts(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let last = number(connection, LAST).await?;
    let mut parts = BTreeMap::<i64, Taken>::new();
    for (after, up_to) in pieces(last, PIECE) {
        let rows = connection
            .rows(
                "SELECT t.hold, COALESCE(h.request, ''), COALESCE(h.amount, 0), CAST(SUM(COALESCE(e.amount, 0)) AS BIGINT)
                 FROM ledger_transaction t
                 LEFT JOIN hold h ON h.id = t.hold
                 LEFT JOIN entry e ON e.ledger_transaction = t.id AND e.book = 'held:' || t.account
                 WHERE t.id > $1 AND t.id <= $2 AND CASE t.kind
                     WHEN 'hold' THEN COALESCE(e.amount, 0) <> COALESCE(h.amount, -1)
                     WHEN 'extend' THEN e.amount IS NOT NULL OR h.id IS NULL ELSE FALSE END
                 GROUP BY t.hold, h.request, h.amount
                 HAVING SUM(COALESCE(e.amount, 0)) <> COALESCE(h.amount, -1)",
                values![after, up_to],
            )
            .await?;
        for row in rows {
            let hold = row.integer_or_null(0)?.unwrap_or(0);
            let taken = parts.entry(hold).or_default();
            taken.request = row.text(1)?;
            taken.amount = row.nanos(2)?;
            taken.sum = checked(taken.sum.checked_add(row.nanos(3)?))?;
            if taken.sum == taken.amount && !taken.request.is_empty() {
                parts.remove(&hold);
            }
        }
    }
    let name = |(hold, taken): (i64, Taken)| {
        let Taken {
            request,
            amount,
            sum,
        } = taken;
        if request.is_empty() {
            return format!("hold {hold}: its transactions took {sum}, and there is no such hold");
        }
        format!("request {request}: its hold has {amount}, its transactions took {sum}")
    };
    Ok(parts.into_iter().map(name).collect())
}

const LAST: &str = "SELECT COALESCE(MAX(id), 0) FROM ledger_transaction";

/// Transactions that end a hold, but disagree with its state or amount, or have no hold.
async fn ends(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT t.id, t.kind, COALESCE(e.amount, 0), h.request, h.state, h.amount
             FROM ledger_transaction t
             LEFT JOIN hold h ON h.id = t.hold
             LEFT JOIN entry e ON e.ledger_transaction = t.id AND e.book = 'held:' || t.account
             WHERE t.kind IN ('settle', 'release', 'expire') AND (h.id IS NULL
                 OR h.state <> CASE t.kind WHEN 'settle' THEN 'settled' WHEN 'release' THEN 'released' ELSE 'expired' END
                 OR COALESCE(e.amount, 0) <> -h.amount)
             ORDER BY t.id",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (transaction, kind, moved) = (row.integer(0)?, row.text(1)?, row.nanos(2)?);
        let which = format!("transaction {transaction}: a {kind} moves {moved} of what is held");
        differences.push(match row.text_or_null(3)? {
            Some(request) => {
                let (state, amount) = (row.text(4)?, row.nanos(5)?);
                format!("{which}; the hold of request {request} is {state} and has {amount}")
            }
            None => format!("{which} for a hold that isn't there"),
        });
    }
    Ok(differences)
}

/// Whether a hold lacks the transaction that made or ended it. Counting is enough if each transaction was found to
/// agree with its hold.
async fn counts_differ(connection: &mut Connection) -> Result<bool, StoreError> {
    let counts = connection
        .row(
            "SELECT t.made, t.ended, h.made, h.ended FROM
                 (SELECT COUNT(CASE kind WHEN 'hold' THEN 1 END) AS made,
                     COUNT(CASE WHEN kind IN ('settle', 'release', 'expire') THEN 1 END) AS ended
                  FROM ledger_transaction) t,
                 (SELECT COUNT(*) AS made, COUNT(CASE WHEN state <> 'open' THEN 1 END) AS ended FROM hold) h",
            &[],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction("counts have no row"))?;
    Ok(counts.integer(0)? != counts.integer(2)? || counts.integer(1)? != counts.integer(3)?)
}

/// Holds without the transaction that made or ended them, or with two.
async fn missing(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT h.request, h.state, COALESCE(t.made, 0), COALESCE(t.ended, 0) FROM hold h
             LEFT JOIN (SELECT hold, COUNT(CASE kind WHEN 'hold' THEN 1 END) AS made,
                            COUNT(CASE WHEN kind IN ('settle', 'release', 'expire') THEN 1 END) AS ended
                        FROM ledger_transaction WHERE hold IS NOT NULL GROUP BY hold) t ON t.hold = h.id
             WHERE COALESCE(t.made, 0) <> 1 OR COALESCE(t.ended, 0) <> CASE h.state WHEN 'open' THEN 0 ELSE 1 END
             ORDER BY h.id",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (request, state) = (row.text(0)?, row.text(1)?);
        let (made, ended) = (row.integer(2)?, row.integer(3)?);
        differences.push(format!(
            "request {request}: its hold is {state}, with {made} transactions that made it and {ended} that ended it"
        ));
    }
    Ok(differences)
}

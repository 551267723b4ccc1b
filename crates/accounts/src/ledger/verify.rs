//! Recomputes everything from the entries and names each difference.

mod promo;
mod revenue;

use crate::db::{Connection, StoreError};
use crate::money::{Counts, Nanos, Price};

/// All differences, in words. Reads one snapshot.
pub(crate) async fn verify(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let mut differences = unbalanced(connection).await?;
    differences.extend(projections(connection).await?);
    differences.extend(open_holds(connection).await?);
    differences.extend(charges(connection).await?);
    differences.extend(revenue::differences(connection).await?);
    differences.extend(promo::differences(connection).await?);
    connection.commit().await?;
    Ok(differences)
}

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

/// Balances that are not what the entries of their books sum to.
async fn projections(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT b.account, b.posted, b.held, COALESCE(w.sum, 0), COALESCE(h.sum, 0)
             FROM balance b
             LEFT JOIN (SELECT book, CAST(SUM(amount) AS BIGINT) AS sum FROM entry GROUP BY book) w
                 ON w.book = 'wallet:' || b.account
             LEFT JOIN (SELECT book, CAST(SUM(amount) AS BIGINT) AS sum FROM entry GROUP BY book) h
                 ON h.book = 'held:' || b.account
             WHERE b.posted - b.held - b.promo <> COALESCE(w.sum, 0) OR b.held <> COALESCE(h.sum, 0)
             ORDER BY b.account",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (account, posted, held) = (row.text(0)?, row.nanos(1)?, row.nanos(2)?);
        let (wallet, in_hold) = (row.nanos(3)?, row.nanos(4)?);
        differences.push(format!(
            "account {account}: the balance says {posted} posted and {held} held, the entries {wallet} in the wallet and {in_hold} held"
        ));
    }
    Ok(differences)
}

/// Accounts whose held balance is not what their open holds sum to.
async fn open_holds(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT b.account, b.held, COALESCE(h.sum, 0)
             FROM balance b
             LEFT JOIN (SELECT account, CAST(SUM(amount) AS BIGINT) AS sum FROM hold WHERE state = 'open' GROUP BY account) h
                 ON h.account = b.account
             WHERE b.held <> COALESCE(h.sum, 0) ORDER BY b.account",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (account, held, open) = (row.text(0)?, row.nanos(1)?, row.nanos(2)?);
        differences.push(format!(
            "account {account}: the balance says {held} held, its open holds {open}"
        ));
    }
    Ok(differences)
}

/// Usage whose cost is not what its tokens cost at its price, or not what revenue got for it.
async fn charges(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT u.request, u.attempt, u.prompt, u.cached, u.completion, p.input, p.output, p.cached,
                 u.held, u.cost, COALESCE(e.amount, 0)
             FROM usage_record u JOIN price p ON p.id = u.price
             LEFT JOIN entry e ON e.ledger_transaction = u.ledger_transaction AND e.book = 'revenue'",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let counts = Counts {
            prompt: row.count(2)?,
            cached: row.count(3)?,
            completion: row.count(4)?,
            reasoning: 0,
        };
        let price = Price {
            input: row.integer(5)?,
            output: row.integer(6)?,
            cached: Some(row.integer(7)?),
        };
        let (held, cost, revenue) = (row.nanos(8)?, row.nanos(9)?, row.nanos(10)?);
        let due = price.cost(&counts).unwrap_or(Nanos::MAX).min(held);
        if due != cost || revenue != cost {
            let (request, attempt) = (row.text(0)?, row.integer(1)?);
            differences.push(format!(
                "attempt {attempt} of request {request}: its tokens cost {due}, the usage record says {cost}, revenue got {revenue}"
            ));
        }
    }
    Ok(differences)
}

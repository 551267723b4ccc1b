//! Revenue without a usage record: exactly the cost of the records that were deleted for their age.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::db::{Connection, StoreError, values};
use crate::money::Nanos;
use crate::utc_day::DAY_MS;

/// By account and UTC day: revenue without a record, and the cost of deleted records.
type Days = BTreeMap<(String, i64), [Nanos; 2]>;

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut days = Days::new();
    let revenue = connection
        .rows(
            "SELECT t.account, t.created_at / 86400000, CAST(SUM(e.amount) AS BIGINT) FROM ledger_transaction t
             LEFT JOIN usage_record u ON u.ledger_transaction = t.id
             LEFT JOIN movement m ON m.ledger_transaction = t.id
             JOIN entry e ON e.ledger_transaction = t.id AND e.book = 'revenue'
             WHERE u.id IS NULL AND m.usage_record IS NULL
             GROUP BY t.account, t.created_at / 86400000",
            &[],
        )
        .await?;
    for row in revenue {
        days.entry((row.text(0)?, row.integer(1)?)).or_default()[0] = row.nanos(2)?;
    }
    let sql = "SELECT account, day, CAST(SUM(pruned_cost) AS BIGINT) FROM usage_day
         WHERE pruned_cost <> 0 GROUP BY account, day";
    for row in connection.rows(sql, &[]).await? {
        days.entry((row.text(0)?, row.integer(1)?)).or_default()[1] = row.nanos(2)?;
    }
    let mut differences = Vec::new();
    for ((account, day), [revenue, pruned]) in days {
        if revenue == pruned {
            continue;
        }
        if pruned == Nanos::ZERO {
            differences.extend(of_day(connection, &account, day).await?);
            continue;
        }
        let begins = Timestamp::from_millisecond(day.saturating_mul(DAY_MS));
        let day: String = begins.map_or_else(|_| day.to_string(), |begins| begins.to_string());
        differences.push(format!(
            "account {account}: on the day from {day}, revenue got {revenue} without a usage record, and the deleted records cost {pruned}"
        ));
    }
    Ok(differences)
}

/// The transactions with revenue but without a record, on a day of which no record was deleted.
async fn of_day(
    connection: &mut Connection,
    account: &str,
    day: i64,
) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT e.ledger_transaction, e.amount FROM ledger_transaction t
             JOIN entry e ON e.ledger_transaction = t.id AND e.book = 'revenue'
             LEFT JOIN usage_record u ON u.ledger_transaction = t.id
             LEFT JOIN movement m ON m.ledger_transaction = t.id
             WHERE t.account = $1 AND t.created_at / 86400000 = $2 AND u.id IS NULL AND m.usage_record IS NULL
             ORDER BY t.id",
            values![account, day],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (transaction, amount) = (row.integer(0)?, row.nanos(1)?);
            Ok(format!(
                "transaction {transaction}: revenue of {amount} without a usage record"
            ))
        })
        .collect()
}

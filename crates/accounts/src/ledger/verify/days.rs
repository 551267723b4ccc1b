//! Usage by day against its usage records, including those that were deleted for their age.

use std::collections::BTreeMap;

use crate::db::{Connection, Row, StoreError, values};
use crate::ledger::verify::compare::{self, number, pieces};
use crate::tokens::sql::token_sql;
use crate::tokens::{CLASSES, TokenClass};

/// Key, day, model and price.
type Day = (String, i64, String, i64);

/// Requests, cost, promo credit, and tokens by class.
type Sums = [i64; 3 + CLASSES];

/// The words for the sums.
fn names() -> impl Iterator<Item = String> {
    let money = [
        "requests",
        "nano-USD of cost",
        "nano-USD of promotional credit",
    ];
    let classes = TokenClass::ALL.map(|class| format!("{} tokens", class.name()));
    money.map(str::to_owned).into_iter().chain(classes)
}

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = Vec::new();
    for ((key, day, model, price), [recorded, of_day]) in unequal(connection).await? {
        let columns = names().zip(recorded).zip(of_day);
        for ((name, recorded), of_day) in columns.filter(|((_, one), other)| one != other) {
            differences.push(format!(
                "key {key}, day {day}, {model} at price {price}: {of_day} {name}, its usage records {recorded}"
            ));
        }
    }
    if !differences.is_empty() || has_more(connection).await? {
        differences.extend(without_records(connection).await?);
    }
    Ok(differences)
}

/// Days whose records were in several ranges, and in the end those that differ. Days that agree aren't fetched. The
/// tokens of deleted records are known only to their day, so tokens of such a day aren't compared.
async fn unequal(connection: &mut Connection) -> Result<BTreeMap<Day, [Sums; 2]>, StoreError> {
    let sql = "SELECT COALESCE(MAX(id), 0) FROM usage_record";
    let last = number(connection, sql).await?;
    let mut days = BTreeMap::<Day, [Sums; 2]>::new();
    for (after, up_to) in pieces(last, compare::PIECE) {
        for row in connection.rows(PIECE, values![after, up_to]).await? {
            let day = (row.text(0)?, row.integer(1)?, row.text(2)?, row.integer(3)?);
            let (more, mut of_day) = (sums(&row, 5)?, sums(&row, 5 + 3 + CLASSES)?);
            let is_pruned = row.integer(4)? != 0;
            let [recorded, _] = days.entry(day.clone()).or_default();
            for (sum, more) in recorded.iter_mut().zip(more) {
                *sum = sum.saturating_add(more);
            }
            if is_pruned {
                of_day[3..].copy_from_slice(&recorded[3..]);
            }
            let both = [*recorded, of_day];
            if both[0] == both[1] {
                days.remove(&day);
            } else {
                days.insert(day, both);
            }
        }
    }
    Ok(days)
}

fn sums(row: &Row, from: usize) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    for (column, sum) in (from..).zip(&mut sums) {
        *sum = row.integer(column)?;
    }
    Ok(sums)
}

/// Compares a range of usage records to their days. In the sums of days a count beyond 2^40 is 2^40.
const PIECE: &str = token_sql!(
    "SELECT u.api_key, u.day, u.model, u.price, COALESCE(d.pruned_requests, 0),
        u.requests, u.cost, u.promo, {u.@},
        COALESCE(d.requests - d.pruned_requests, 0), COALESCE(d.cost - d.pruned_cost, 0),
        COALESCE(d.promo - d.pruned_promo, 0), {COALESCE(d.@, 0)}
    FROM (SELECT api_key, ended_at / 86400000 AS day, model, price, COUNT(*) AS requests,
              CAST(SUM(cost) AS BIGINT) AS cost, CAST(SUM(promo) AS BIGINT) AS promo,
              {CAST(SUM(CASE WHEN @ > 1099511627776 THEN 1099511627776 ELSE @ END) AS BIGINT) AS @}
          FROM usage_record WHERE id > $1 AND id <= $2
          GROUP BY api_key, ended_at / 86400000, model, price) u
    LEFT JOIN usage_day d ON d.api_key = u.api_key AND d.day = u.day AND d.model = u.model AND d.price = u.price
    WHERE d.api_key IS NULL OR d.requests - d.pruned_requests <> u.requests OR d.cost - d.pruned_cost <> u.cost
        OR d.promo - d.pruned_promo <> u.promo OR (d.pruned_requests = 0 AND ({d.@ <> u.@| OR }))"
);

/// Whether days have usage without any record. Counting is enough if each record was found to agree with its day.
async fn has_more(connection: &mut Connection) -> Result<bool, StoreError> {
    let counts = connection
        .row(
            "SELECT (SELECT COUNT(*) FROM usage_record),
                 (SELECT CAST(COALESCE(SUM(requests - pruned_requests), 0) AS BIGINT) FROM usage_day),
                 (SELECT COUNT(*) FROM usage_day WHERE requests = pruned_requests
                     AND (cost <> pruned_cost OR promo <> pruned_promo))",
            &[],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction("counts have no row"))?;
    Ok(counts.integer(0)? != counts.integer(1)? || counts.integer(2)? != 0)
}

async fn without_records(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT d.api_key, d.day, d.model, d.price, d.requests - d.pruned_requests, d.cost - d.pruned_cost
             FROM usage_day d
             LEFT JOIN (SELECT DISTINCT api_key, ended_at / 86400000 AS day, model, price FROM usage_record) u
                 ON u.api_key = d.api_key AND u.day = d.day AND u.model = d.model AND u.price = d.price
             WHERE u.api_key IS NULL AND (d.requests <> d.pruned_requests OR d.cost <> d.pruned_cost OR d.promo <> d.pruned_promo)
             ORDER BY d.api_key, d.day, d.model, d.price",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (key, day, model) = (row.text(0)?, row.integer(1)?, row.text(2)?);
        let (price, requests, cost) = (row.integer(3)?, row.integer(4)?, row.nanos(5)?);
        differences.push(format!(
            "key {key}, day {day}, {model} at price {price}: {requests} requests for {cost} without a usage record"
        ));
    }
    Ok(differences)
}

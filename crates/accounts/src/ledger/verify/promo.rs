//! Promotional credit, refunds and usage by day: whether each agrees with what it is made of.

use crate::db::{Connection, StoreError};

/// What is compared: a statement that finds what differs as a name and two amounts, and the words for it.
struct Comparison {
    sql: &'static str,
    /// What the name is of, and what the amounts are.
    words: [&'static str; 3],
}

const COMPARISONS: [Comparison; 6] = [
    Comparison {
        sql: "SELECT b.account, b.promo, COALESCE(e.sum, 0) FROM balance b
              LEFT JOIN (SELECT book, CAST(SUM(amount) AS BIGINT) AS sum FROM entry
                         WHERE book LIKE 'promo:%' GROUP BY book) e ON e.book = 'promo:' || b.account
              WHERE b.promo <> COALESCE(e.sum, 0) ORDER BY b.account",
        words: ["account", "the balance says it has promotional credit of", "the entries"],
    },
    Comparison {
        sql: "SELECT b.account, b.promo, COALESCE(p.sum, 0) FROM balance b
              LEFT JOIN (SELECT account, CAST(SUM(free) AS BIGINT) AS sum FROM promo GROUP BY account) p
                  ON p.account = b.account
              WHERE b.promo <> COALESCE(p.sum, 0) ORDER BY b.account",
        words: ["account", "the balance says it has promotional credit of", "its gifts"],
    },
    Comparison {
        sql: "SELECT CAST(p.id AS TEXT), p.free + p.held, p.amount - COALESCE(u.used, 0) FROM promo p
              LEFT JOIN (SELECT promo, CAST(SUM(used - refunded) AS BIGINT) AS used, CAST(SUM(held) AS BIGINT) AS held
                         FROM promo_use GROUP BY promo) u ON u.promo = p.id
              WHERE p.held <> COALESCE(u.held, 0) OR p.free + p.held > p.amount - COALESCE(u.used, 0) ORDER BY p.id",
        words: ["gift", "it says that it has left", "its uses leave"],
    },
    Comparison {
        sql: "SELECT h.request, h.promo, COALESCE(u.held, 0) FROM hold h
              LEFT JOIN (SELECT hold, CAST(SUM(held) AS BIGINT) AS held FROM promo_use GROUP BY hold) u ON u.hold = h.id
              WHERE h.state = 'open' AND h.promo <> COALESCE(u.held, 0) ORDER BY h.id",
        words: ["request", "its hold has promotional credit of", "its uses of gifts"],
    },
    Comparison {
        sql: "SELECT r.request, r.promo, COALESCE(u.used, 0) FROM usage_record r
              JOIN hold h ON h.request = r.request AND h.attempt = r.attempt
              LEFT JOIN (SELECT hold, CAST(SUM(used) AS BIGINT) AS used FROM promo_use GROUP BY hold) u ON u.hold = h.id
              WHERE r.promo <> COALESCE(u.used, 0) ORDER BY r.id",
        words: ["request", "its usage record says that promotional credit paid", "its uses of gifts"],
    },
    Comparison {
        sql: "SELECT u.request, u.cost, r.sum FROM usage_record u
              JOIN (SELECT m.usage_record, CAST(-SUM(e.amount) AS BIGINT) AS sum FROM movement m
                    JOIN entry e ON e.ledger_transaction = m.ledger_transaction AND e.book = 'revenue'
                    GROUP BY m.usage_record) r ON r.usage_record = u.id
              WHERE r.sum > u.cost ORDER BY u.id",
        words: ["request", "it cost", "refunded were"],
    },
];

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = Vec::new();
    for Comparison {
        sql,
        words: [what, one, other],
    } in COMPARISONS
    {
        for row in connection.rows(sql, &[]).await? {
            let (name, left, right) = (row.text(0)?, row.nanos(1)?, row.nanos(2)?);
            differences.push(format!("{what} {name}: {one} {left}, {other} {right}"));
        }
    }
    differences.extend(days(connection).await?);
    Ok(differences)
}

/// Days whose usage is not the sum of its records, those included that were deleted for their age.
async fn days(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = connection
        .rows(
            "SELECT d.api_key, d.day, d.requests, d.cost, COALESCE(u.requests, 0) + d.pruned_requests,
                 COALESCE(u.cost, 0) + d.pruned_cost
             FROM usage_day d
             LEFT JOIN (SELECT api_key, ended_at / 86400000 AS day, model, price, COUNT(*) AS requests,
                            CAST(SUM(cost) AS BIGINT) AS cost, CAST(SUM(promo) AS BIGINT) AS promo
                        FROM usage_record GROUP BY api_key, ended_at / 86400000, model, price) u
                 ON u.api_key = d.api_key AND u.day = d.day AND u.model = d.model AND u.price = d.price
             WHERE d.requests <> COALESCE(u.requests, 0) + d.pruned_requests
                 OR d.cost <> COALESCE(u.cost, 0) + d.pruned_cost OR d.promo <> COALESCE(u.promo, 0) + d.pruned_promo
             ORDER BY d.api_key, d.day",
            &[],
        )
        .await?;
    let mut differences = Vec::new();
    for row in rows {
        let (key, day) = (row.text(0)?, row.integer(1)?);
        let (requests, cost) = (row.integer(2)?, row.nanos(3)?);
        let (recorded, charged) = (row.integer(4)?, row.nanos(5)?);
        differences.push(format!(
            "key {key}, day {day}: {requests} requests for {cost}, its usage records {recorded} for {charged}"
        ));
    }
    Ok(differences)
}

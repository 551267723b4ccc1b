//! Promo credit: whether promos agree with balances, entries, holds and the uses of them.

use crate::db::{Connection, StoreError};
use crate::ledger::verify::compare::{Comparison, compare};

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = compare(connection, &[FREE, HELD]).await?;
    differences.extend(compare(connection, &PROMOS).await?);
    Ok(differences)
}

/// Balances whose promo credit is not the sum of what is free of their promos.
pub(super) const FREE: Comparison = Comparison {
    sql: "SELECT b.account, b.promo, COALESCE(p.sum, 0) FROM balance b
          LEFT JOIN (SELECT account, CAST(SUM(free) AS BIGINT) AS sum FROM promo WHERE free > 0 GROUP BY account) p
              ON p.account = b.account
          WHERE b.promo <> COALESCE(p.sum, 0) ORDER BY b.account",
    words: [
        "account",
        "the balance says it has promotional credit of",
        "its promos",
    ],
};

/// Open holds whose promo credit is not the sum of what they took of promos.
pub(super) const HELD: Comparison = Comparison {
    sql: "SELECT request, promo, used FROM (SELECT h.id, h.request, h.promo,
                  (SELECT CAST(COALESCE(SUM(u.held), 0) AS BIGINT) FROM promo_use u WHERE u.hold = h.id) AS used
              FROM hold h WHERE h.state = 'open') o
          WHERE promo <> used ORDER BY id",
    words: [
        "request",
        "its hold has promotional credit of",
        "its uses of promos",
    ],
};

const PROMOS: [Comparison; 3] = [
    Comparison {
        sql: "SELECT CAST(p.id AS TEXT), p.amount, COALESCE(e.amount, 0) FROM promo p
              LEFT JOIN entry e ON e.ledger_transaction = p.ledger_transaction AND e.book = 'promo:' || p.account
              WHERE p.amount <> COALESCE(e.amount, 0) ORDER BY p.id",
        words: ["promo", "it says that it was", "the entries"],
    },
    Comparison {
        sql: "SELECT CAST(p.id AS TEXT), p.free + p.held, p.amount - COALESCE(u.used, 0) FROM promo p
              LEFT JOIN (SELECT promo, CAST(SUM(used - refunded) AS BIGINT) AS used, CAST(SUM(held) AS BIGINT) AS held
                         FROM promo_use GROUP BY promo) u ON u.promo = p.id
              WHERE p.held <> COALESCE(u.held, 0) OR p.free + p.held > p.amount - COALESCE(u.used, 0) ORDER BY p.id",
        words: ["promo", "it says that it has left", "its uses leave"],
    },
    Comparison {
        sql: "SELECT h.request, CAST(0 AS BIGINT), u.held FROM promo_use u JOIN hold h ON h.id = u.hold
              WHERE u.held > 0 AND h.state <> 'open' ORDER BY h.id",
        words: [
            "request",
            "its hold has ended and has promotional credit of",
            "its uses of promos",
        ],
    },
];

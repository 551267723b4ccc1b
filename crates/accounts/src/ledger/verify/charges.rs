//! Usage records against prices, revenue, holds and promos.

use crate::db::{Connection, Row, StoreError};
use crate::ledger::verify::compare::{Comparison, compare};
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{Counts, PRICES, Price};

pub(super) async fn differences(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut differences = Vec::new();
    for row in connection.rows(DOUBTFUL, &[]).await? {
        differences.extend(Record::read(&row)?.differences());
    }
    differences.extend(compare(connection, &[REFUNDS]).await?);
    Ok(differences)
}

/// Usage records in which anything may differ. The record of a late charge belongs to a hold that had ended at a
/// checkpoint, and has another attempt. The cost is computed in the database as far as that can't overflow: for counts
/// below 2^31 and prices below 2^30. Records whose cost was cut at the amount of the hold are left to [`Record`], too.
const DOUBTFUL: &str = token_sql!("
    SELECT u.request, u.attempt, u.held, u.cost, COALESCE(e.amount, 0), u.promo,
        CASE t.kind WHEN 'late' THEN 0 ELSE
            (SELECT CAST(COALESCE(SUM(g.used), 0) AS BIGINT) FROM promo_use g WHERE g.hold = h.id) END,
        CASE WHEN t.kind = 'late' AND h.state <> 'open' THEN 'settled' ELSE h.state END,
        CASE t.kind WHEN 'late' THEN u.held ELSE h.amount END,
        CAST(CASE WHEN h.request = u.request AND u.attempt - h.attempt = CASE t.kind WHEN 'late' THEN 1000000 ELSE 0 END
            AND h.account = u.account AND h.api_key = u.api_key
            AND h.model = u.model AND h.price = u.price AND t.account = u.account THEN 1 ELSE 0 END AS BIGINT), {p.%}, {u.@}
    FROM usage_record u
    LEFT JOIN price p ON p.id = u.price
    LEFT JOIN ledger_transaction t ON t.id = u.ledger_transaction
    LEFT JOIN hold h ON h.id = t.hold
    LEFT JOIN entry e ON e.ledger_transaction = u.ledger_transaction AND e.book = 'revenue'
    WHERE CASE WHEN u.prompt BETWEEN 0 AND 2147483647 AND u.cached BETWEEN 0 AND 2147483647
            AND u.completion BETWEEN 0 AND 2147483647 AND p.input BETWEEN 0 AND 1073741823
            AND p.output BETWEEN 0 AND 1073741823 AND p.cached BETWEEN 0 AND 1073741823
        THEN (u.prompt * p.input + u.completion * p.output
            + CASE WHEN u.cached < u.prompt THEN u.cached ELSE u.prompt END * (p.cached - p.input) + 9) / 10 <> u.cost
        ELSE TRUE END
        OR COALESCE(e.amount, 0) <> u.cost
        OR h.id IS NULL OR h.state = 'open' OR h.state = 'released' AND t.kind <> 'late' OR h.amount <> u.held
        OR h.request <> u.request OR h.attempt <> u.attempt OR h.account <> u.account OR h.api_key <> u.api_key
        OR h.model <> u.model OR h.price <> u.price OR t.account <> u.account
        OR u.promo <> (SELECT COALESCE(SUM(g.used), 0) FROM promo_use g WHERE g.hold = h.id)
    ORDER BY u.id");

/// Requests that were refunded more than they cost. `CROSS JOIN` makes SQLite begin with the refunds, which are few.
const REFUNDS: Comparison = Comparison {
    sql: "SELECT u.request, u.cost, r.sum
          FROM (SELECT m.usage_record, CAST(-SUM(e.amount) AS BIGINT) AS sum FROM movement m
                JOIN entry e ON e.ledger_transaction = m.ledger_transaction AND e.book = 'revenue'
                WHERE m.usage_record IS NOT NULL GROUP BY m.usage_record) r
          CROSS JOIN usage_record u WHERE u.id = r.usage_record AND r.sum > u.cost ORDER BY u.id",
    words: ["request", "it cost", "refunded were"],
};

/// A usage record, and the values that it should agree with.
#[derive(Debug)]
struct Record {
    request: String,
    attempt: i64,
    /// The cost of its tokens; `None` if that is too large to count.
    price: Option<Nanos>,
    held: Nanos,
    cost: Nanos,
    revenue: Nanos,
    promo: Nanos,
    promo_uses: Nanos,
    /// State and amount of the hold that it settled, and whether the hold is of the same request.
    hold: Option<(String, Nanos, bool)>,
}

impl Record {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let has_price = row.integer_or_null(10)?.is_some();
        let price = has_price.then(|| Price::read(row, 10)).transpose()?;
        // A negative count is a difference, and no reason to stop.
        let counts = Counts::read(row, 10 + PRICES).ok();
        let hold = match row.text_or_null(7)? {
            Some(state) => Some((state, row.nanos(8)?, row.integer(9)? == 1)),
            None => None,
        };
        Ok(Record {
            request: row.text(0)?,
            attempt: row.integer(1)?,
            price: price
                .zip(counts)
                .and_then(|(price, counts)| price.cost(&counts)),
            held: row.nanos(2)?,
            cost: row.nanos(3)?,
            revenue: row.nanos(4)?,
            promo: row.nanos(5)?,
            promo_uses: row.nanos(6)?,
            hold,
        })
    }

    fn differences(&self) -> Vec<String> {
        let Record {
            request,
            attempt,
            cost,
            revenue,
            held,
            promo,
            promo_uses,
            ..
        } = self;
        let due = self.price.unwrap_or(Nanos::MAX).min(*held);
        let which = format!("attempt {attempt} of request {request}");
        let mut differences = Vec::new();
        if due != *cost || revenue != cost {
            differences.push(format!(
                "{which}: its tokens cost {due}, the usage record says {cost}, revenue got {revenue}"
            ));
        }
        match &self.hold {
            None => differences.push(format!("{which}: a usage record without a hold")),
            Some((state, amount, is_its)) => {
                let ended = state == "settled" || state == "expired";
                if !ended || amount != held || !is_its {
                    let whose = if *is_its {
                        "its hold"
                    } else {
                        "another's hold"
                    };
                    differences.push(format!(
                        "{which}: the usage record says that {held} was held, and {whose} is {state} with {amount}"
                    ));
                }
            }
        }
        if promo != promo_uses {
            differences.push(format!(
                "request {request}: its usage record says that promotional credit paid {promo}, its uses of promos {promo_uses}"
            ));
        }
        differences
    }
}

//! Batches: the usual holds and settlements of a transaction, all of them in two statements.
//!
//! On PostgreSQL a round trip costs more than the statement itself, so usual operations aren't run one after the other.
//! An operation fits into a batch if it has no promo credit and no spend cap, the balance suffices, and there is no event
//! to write. With the balances locked and read, such operations are decided here in memory, one after the other, and
//! written together. All others are left to the operations themselves, as are all of a transaction in which the
//! database turns out to differ from what was assumed, and everything on SQLite, where statements are cheap.

use std::collections::HashMap;

use crate::db::{Column, Connection, Row, StoreError};
use crate::events::LowBalance;
use crate::failpoint;
use crate::ids::AccountId;
use crate::ledger::checked;
use crate::ledger::ending::Closing;
use crate::ledger::hold::{Hold, NewHold};
use crate::ledger::settlement::Settlement;
use crate::money::Nanos;
use crate::tokens::sql::token_sql;
use crate::tokens::{CLASSES, PRICES};
use crate::utc_day::day;

/// An operation that may fit into a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BatchOp<'a> {
    Hold {
        new: &'a NewHold,
        /// The name of the node that makes the hold.
        node: &'a str,
    },
    Settle {
        hold: &'a Hold,
        settlement: Settlement,
    },
}

/// The result of an operation that was written in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BatchOutcome {
    Held { id: i64 },
    Settled { charged: Nanos },
}

/// A locked balance, with the decisions so far applied to it.
#[derive(Debug)]
struct Balance {
    posted: Nanos,
    held: Nanos,
    low: LowBalance,
}

impl Balance {
    /// `None` if the account has promo credit.
    fn read(row: &Row) -> Result<Option<Self>, StoreError> {
        if row.time_or_null(6)?.is_some() {
            return Ok(None);
        }
        Ok(Some(Balance {
            posted: row.nanos(1)?,
            held: row.nanos(2)?,
            low: LowBalance::read(row, [3, 4, 5])?,
        }))
    }
}

/// Writes the operations that fit into a batch, and returns the position and the result of each. `None` if the database
/// differs from what was assumed: then the transaction has to begin anew without this. Settlements come first, as they
/// free money.
pub(crate) async fn write(
    connection: &mut Connection,
    accounts: &[&str],
    asked: &[(usize, BatchOp<'_>)],
) -> Result<Option<Vec<(usize, BatchOutcome)>>, StoreError> {
    if asked.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let mut balances = HashMap::new();
    for row in connection.lock_balances(accounts).await? {
        if let Some(balance) = Balance::read(&row)? {
            balances.insert(AccountId::from(row.text(0)?), balance);
        }
    }
    let (mut ends, mut holds) = (Ends::default(), Holds::default());
    for (at, operation) in asked {
        if let BatchOp::Settle { hold, settlement } = operation
            && let Some(balance) = balances.get_mut(hold.account())
        {
            ends.add(*at, hold, settlement, balance)?;
        }
    }
    for (at, operation) in asked {
        if let BatchOp::Hold { new, node } = operation
            && let Some(balance) = balances.get_mut(&new.caller.account)
        {
            holds.add(*at, new, node, balance)?;
        }
    }
    let ended = ends.write(connection).await?;
    let held = holds.write(connection).await?;
    Ok(ended.zip(held).map(|(ended, held)| [ended, held].concat()))
}

#[derive(Debug, Default)]
struct Ends {
    /// Columns: hold, amount, cost, end, its day, and the posted balance right after.
    numbers: [Vec<i64>; 6],
    outcomes: Vec<String>,
    sources: Vec<String>,
    counts: [Vec<i64>; CLASSES],
    written: Vec<(usize, BatchOutcome)>,
}

impl Ends {
    fn add(
        &mut self,
        at: usize,
        hold: &Hold,
        settlement: &Settlement,
        balance: &mut Balance,
    ) -> Result<(), StoreError> {
        let Settlement {
            counts,
            outcome,
            source,
            now,
        } = *settlement;
        let charged = Closing::of(hold).cost(&counts);
        let posted = checked(balance.posted.checked_sub(charged))?;
        if hold.has_promo() || balance.low.is_to_tell(posted, now)? {
            return Ok(());
        }
        balance.posted = posted;
        balance.held = checked(balance.held.checked_sub(hold.amount()))?;
        let (ended_at, posted) = (now.as_millisecond(), posted.get());
        let row = [
            hold.id(),
            hold.amount().get(),
            charged.get(),
            ended_at,
            day(now),
            posted,
        ];
        for (column, number) in self.numbers.iter_mut().zip(row) {
            column.push(number);
        }
        for (column, count) in self.counts.iter_mut().zip(counts.columns()) {
            column.push(count);
        }
        self.outcomes.push(outcome.name().to_owned());
        self.sources.push(source.name().to_owned());
        self.written.push((at, BatchOutcome::Settled { charged }));
        Ok(())
    }

    async fn write(
        self,
        connection: &mut Connection,
    ) -> Result<Option<Vec<(usize, BatchOutcome)>>, StoreError> {
        if self.written.is_empty() {
            return Ok(Some(self.written));
        }
        failpoint::pass("settlement-begun");
        let mut columns: Vec<_> = self.numbers.into_iter().map(Column::Integers).collect();
        columns.extend([Column::Texts(self.outcomes), Column::Texts(self.sources)]);
        columns.extend(self.counts.map(Column::Integers));
        let ended = connection.many(END, columns).await?;
        failpoint::pass("usage-written");
        Ok((ended.len() == self.written.len()).then_some(self.written))
    }
}

#[derive(Debug, Default)]
struct Holds {
    /// Columns: request, account, key, model and node.
    texts: [Vec<String>; 5],
    /// Columns: attempt, amount, creation, and the posted balance right after.
    numbers: [Vec<i64>; 4],
    prices: [Vec<i64>; PRICES],
    at: Vec<usize>,
}

impl Holds {
    fn add(
        &mut self,
        at: usize,
        new: &NewHold,
        node: &str,
        balance: &mut Balance,
    ) -> Result<(), StoreError> {
        let spendable = checked(balance.posted.checked_add(balance.low.credit_limit()))?;
        let held = checked(balance.held.checked_add(new.amount))?;
        if new.caller.capped || new.amount.is_negative() || held > spendable {
            return Ok(());
        }
        balance.held = held;
        let texts = [
            new.request.as_str(),
            new.caller.account.as_str(),
            new.caller.key.as_str(),
            &new.model,
            node,
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text.to_owned());
        }
        let numbers = [
            i64::from(new.attempt),
            new.amount.get(),
            new.now.as_millisecond(),
            balance.posted.get(),
        ];
        for (column, number) in self.numbers.iter_mut().zip(numbers) {
            column.push(number);
        }
        for (column, price) in self.prices.iter_mut().zip(new.price.columns()) {
            column.push(price);
        }
        self.at.push(at);
        Ok(())
    }

    async fn write(
        self,
        connection: &mut Connection,
    ) -> Result<Option<Vec<(usize, BatchOutcome)>>, StoreError> {
        if self.at.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let texts = self.texts.into_iter().map(Column::Texts);
        let numbers = self.numbers.into_iter().chain(self.prices);
        let numbers = numbers.map(Column::Integers);
        let held = connection
            .many(HOLD, texts.chain(numbers).collect())
            .await?;
        failpoint::pass("hold-written");
        if held.len() != self.at.len() {
            return Ok(None);
        }
        let mut written = Vec::new();
        for (at, row) in self.at.into_iter().zip(held) {
            written.push((
                at,
                BatchOutcome::Held {
                    id: row.integer(0)?,
                },
            ));
        }
        Ok(Some(written))
    }
}

/// Makes many holds, in their order. Leaves out attempts that have a hold, keys that have a cap and prices that are
/// new: the caller sees too few rows.
const HOLD: &str = token_sql!(
    "
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
        $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], {%:$#10::bigint[]})
    WITH ORDINALITY AS row (request, account, api_key, model, node, attempt, amount, created_at, posted, {%}, place)
), made AS (
    INSERT INTO hold (request, attempt, account, api_key, model, price, amount, state, node, created_at, expires_at)
    SELECT a.request, a.attempt, a.account, a.api_key, a.model, p.id, a.amount, 'open', a.node, a.created_at, a.created_at
    FROM asked a
    JOIN price p ON p.model = a.model AND {p.% = a.%| AND }
    JOIN api_key k ON k.id = a.api_key AND COALESCE(k.cap_total, k.cap_month, k.cap_day) IS NULL
    ORDER BY a.place
    ON CONFLICT (request, attempt) DO NOTHING
    RETURNING id, request, attempt
), taken AS (
    SELECT m.id, a.* FROM made m JOIN asked a ON a.request = m.request AND a.attempt = m.attempt
), held AS (
    UPDATE balance SET held = balance.held + sum.amount
    FROM (SELECT account, CAST(SUM(amount) AS BIGINT) AS amount FROM taken GROUP BY account) sum
    WHERE balance.account = sum.account
), transactions AS (
    INSERT INTO ledger_transaction (idempotency_key, kind, account, hold, posted, created_at)
    SELECT 'hold:' || request || ':' || attempt, 'hold', account, id, posted, created_at FROM taken ORDER BY place
    RETURNING id, hold
), entries AS (
    INSERT INTO entry (ledger_transaction, book, amount)
    SELECT t.id, e.book, e.amount FROM transactions t JOIN taken ON taken.id = t.hold
    CROSS JOIN LATERAL (VALUES ('wallet:' || account, -taken.amount), ('held:' || account, taken.amount)) e (book, amount)
    WHERE e.amount <> 0
)
SELECT id FROM taken ORDER BY place"
);

/// Settles many holds. Leaves out holds that aren't open or differ from what was assumed: the caller sees too few rows.
const END: &str = token_sql!(
    "
WITH asked AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::text[], $8::text[], {$#9::bigint[]})
    WITH ORDINALITY AS row (hold, held, cost, time, day, posted, outcome, source, {used_@}, place)
), ended AS (
    UPDATE hold SET state = 'settled', ended_at = asked.time FROM asked
    WHERE hold.id = asked.hold AND hold.state = 'open' AND hold.amount = asked.held AND hold.promo = 0
    RETURNING hold.request, hold.attempt, hold.account, hold.api_key, hold.model, hold.price, hold.created_at, asked.*
), paid AS (
    UPDATE balance SET posted = balance.posted - sum.cost, held = balance.held - sum.held
    FROM (
        SELECT account, CAST(SUM(cost) AS BIGINT) AS cost, CAST(SUM(held) AS BIGINT) AS held FROM ended GROUP BY account
    ) sum
    WHERE balance.account = sum.account
), transactions AS (
    INSERT INTO ledger_transaction (idempotency_key, kind, account, hold, posted, created_at)
    SELECT 'end:' || request || ':' || attempt, 'settle', account, hold, posted, time FROM ended ORDER BY place
    RETURNING id, hold
), entries AS (
    INSERT INTO entry (ledger_transaction, book, amount)
    SELECT t.id, e.book, e.amount FROM transactions t JOIN ended USING (hold)
    CROSS JOIN LATERAL (VALUES ('held:' || account, -held), ('revenue', cost), ('wallet:' || account, held - cost)) e (book, amount)
    WHERE e.amount <> 0
), records AS (
    INSERT INTO usage_record (ledger_transaction, request, attempt, account, api_key, model, price,
        {@}, held, cost, outcome, source, started_at, ended_at)
    SELECT t.id, request, attempt, account, api_key, model, price,
        {used_@}, held, cost, outcome, source, created_at, time
    FROM transactions t JOIN ended USING (hold) ORDER BY place
), days AS (
    INSERT INTO usage_day (api_key, day, model, price, account, requests, {@}, cost, promo)
    SELECT api_key, day, model, price, account, COUNT(*),
        {SUM(LEAST(used_@, 1099511627776))}, SUM(cost), 0
    FROM ended GROUP BY api_key, day, model, price, account ORDER BY api_key, day, model, price
    ON CONFLICT (api_key, day, model, price) DO UPDATE SET
        requests = usage_day.requests + excluded.requests, {@ = usage_day.@ + excluded.@},
        cost = usage_day.cost + excluded.cost
)
SELECT hold FROM ended"
);

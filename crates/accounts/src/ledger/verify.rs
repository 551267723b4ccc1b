//! Verification: recomputes everything from the entries and names each difference.
//!
//! Comparisons are made in the database where that is possible: rows that agree aren't sent to this process. Sums are
//! made over ranges of the history, so that memory grows with accounts and with what happens at a time, not with the
//! history. Each part reads one snapshot.

mod books;
mod charges;
mod days;
mod holds;
mod promo;
mod quick;
mod revenue;

use crate::db::{Connection, Database, StoreError};

pub(crate) use self::quick::verify as quickly;

/// Transactions or usage records that are summed up at a time: this many are sorted in the processor's cache.
const PIECE: i64 = 20_000;

/// All differences, in words. The parts are independent, run at the same time, and take about equally long.
pub(crate) async fn verify(database: &Database) -> Result<Vec<String>, StoreError> {
    let (books, holds, charges, days) = futures::try_join!(
        part(database, Part::Books),
        part(database, Part::Holds),
        part(database, Part::Charges),
        part(database, Part::Days),
    )?;
    Ok([books, holds, charges, days].concat())
}

/// The comparisons that share a snapshot.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Entries, balances and promos.
    Books,
    /// Holds and their transactions.
    Holds,
    /// Usage records, their cost, and revenue.
    Charges,
    /// Usage records, and the sums by day.
    Days,
}

async fn part(database: &Database, part: Part) -> Result<Vec<String>, StoreError> {
    let own = database.clone();
    let compared = async move { differences(&mut own.connect().await?, part).await };
    database.aside(compared).await
}

async fn differences(connection: &mut Connection, part: Part) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let differences = match part {
        Part::Books => {
            let differences = books::differences(connection).await?;
            [differences, promo::differences(connection).await?].concat()
        }
        Part::Holds => holds::differences(connection).await?,
        Part::Charges => {
            let differences = charges::differences(connection).await?;
            [differences, revenue::differences(connection).await?].concat()
        }
        Part::Days => days::differences(connection).await?,
    };
    connection.commit().await?;
    Ok(differences)
}

/// A comparison: a statement that finds differences as a name and two amounts, and the words for them.
#[derive(Debug)]
struct Comparison {
    sql: &'static str,
    /// The kind of thing that the name is of, and a label for each amount.
    words: [&'static str; 3],
}

async fn compare(
    connection: &mut Connection,
    comparisons: &[Comparison],
) -> Result<Vec<String>, StoreError> {
    let mut differences = Vec::new();
    for Comparison { sql, words } in comparisons {
        let [what, one, other] = words;
        for row in connection.rows(sql, &[]).await? {
            let (name, left, right) = (row.text(0)?, row.nanos(1)?, row.nanos(2)?);
            differences.push(format!("{what} {name}: {one} {left}, {other} {right}"));
        }
    }
    Ok(differences)
}

/// Splits the ids up to `last` into ranges of `piece` ids: after the first number, up to the second one.
fn pieces(last: i64, piece: i64) -> impl Iterator<Item = (i64, i64)> {
    std::iter::successors(Some(0i64), move |after| after.checked_add(piece))
        .take_while(move |after| *after < last)
        .map(move |after| (after, after.saturating_add(piece)))
}

/// The number that a statement returns.
async fn number(connection: &mut Connection, sql: &'static str) -> Result<i64, StoreError> {
    let row = connection.row(sql, &[]).await?;
    row.map_or(Ok(0), |row| row.integer(0))
}

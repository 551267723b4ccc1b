//! Recomputes everything from the entries and names each difference.
//!
//! Whatever can be decided in the database is: of what agrees, no row travels. What has to be summed up is, in pieces
//! of the history, so that memory grows with accounts and with what goes on at a time, not with the history.
//! Each part reads one snapshot.

mod books;
mod charges;
mod days;
mod holds;
mod promo;
mod quick;
mod revenue;

use crate::db::{Connection, Database, StoreError};

pub(crate) use self::quick::verify as quickly;

/// Transactions or usage records that are summed up at a time: so many are sorted in the processor's cache.
const PIECE: i64 = 20_000;

/// All differences, in words. The parts need nothing of each other, and take about as long.
pub(crate) async fn verify(database: &Database) -> Result<Vec<String>, StoreError> {
    let (books, holds, charges, days) = futures::try_join!(
        part(database, Part::Books),
        part(database, Part::Holds),
        part(database, Part::Charges),
        part(database, Part::Days),
    )?;
    Ok([books, holds, charges, days].concat())
}

/// What is compared in one snapshot.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Entries, balances and gifts.
    Books,
    /// Holds and their transactions.
    Holds,
    /// Usage records, what they cost, and revenue.
    Charges,
    /// Usage records, and sums by day.
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

/// What is compared: a statement that finds what differs as a name and two amounts, and the words for it.
#[derive(Debug)]
struct Comparison {
    sql: &'static str,
    /// What the name is of, and what the amounts are.
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

/// The pieces of a table of which this is the last id, of so many ids each: after and up to.
fn pieces(last: i64, piece: i64) -> impl Iterator<Item = (i64, i64)> {
    std::iter::successors(Some(0i64), move |after| after.checked_add(piece))
        .take_while(move |after| *after < last)
        .map(move |after| (after, after.saturating_add(piece)))
}

/// What a statement counts.
async fn number(connection: &mut Connection, sql: &'static str) -> Result<i64, StoreError> {
    let row = connection.row(sql, &[]).await?;
    row.map_or(Ok(0), |row| row.integer(0))
}

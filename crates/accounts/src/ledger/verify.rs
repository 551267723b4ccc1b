//! Recomputes everything from the entries and names each difference.
//!
//! Whatever can be decided in the database is: of what agrees, no row travels. What has to be summed up is, in pieces
//! of the history, so that memory grows with accounts and with what goes on at a time, not with the history.
//! Each group of checks reads one snapshot.

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

/// All differences, in words. The two halves need nothing of each other, and take about as long.
pub(crate) async fn verify(database: &Database) -> Result<Vec<String>, StoreError> {
    let own = database.clone();
    let money = database.aside(async move { money(&mut own.connect().await?).await });
    let own = database.clone();
    let requests = database.aside(async move { requests(&mut own.connect().await?).await });
    let (mut differences, others) = futures::try_join!(money, requests)?;
    differences.extend(others);
    Ok(differences)
}

/// Whether entries, balances and gifts agree.
async fn money(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let mut differences = books::differences(connection).await?;
    differences.extend(promo::differences(connection).await?);
    connection.commit().await?;
    Ok(differences)
}

/// Whether holds, usage and revenue agree.
async fn requests(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let mut differences = holds::differences(connection).await?;
    differences.extend(charges::differences(connection).await?);
    differences.extend(revenue::differences(connection).await?);
    differences.extend(days::differences(connection).await?);
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

/// The pieces of a table of which this is the last id: after and up to.
fn pieces(last: i64) -> impl Iterator<Item = (i64, i64)> {
    std::iter::successors(Some(0i64), |after| after.checked_add(PIECE))
        .take_while(move |after| *after < last)
        .map(|after| (after, after.saturating_add(PIECE)))
}

async fn last(connection: &mut Connection, sql: &'static str) -> Result<i64, StoreError> {
    let row = connection.row(sql, &[]).await?;
    row.map_or(Ok(0), |row| row.integer(0))
}

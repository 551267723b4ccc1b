//! Verification: recomputes everything from the entries and names each difference.
//!
//! Comparisons are made in the database where that is possible: rows that agree aren't sent to this process. Sums are
//! made over ranges of the history, so that memory grows with accounts and with what happens at a time, not with the
//! history. Each part reads one snapshot.

mod books;
mod charges;
mod compare;
mod days;
mod holds;
mod promo;
mod quick;
mod revenue;

use crate::db::{Connection, Database, StoreError};

pub(crate) use self::quick::verify as quickly;

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

//! Comparing two amounts for each thing, in the database.

use crate::db::{Connection, StoreError};

/// Transactions or usage records that are summed up at a time: this many are sorted in the processor's cache.
pub(super) const PIECE: i64 = 20_000;

/// A comparison: a statement that finds differences as a name and two amounts, and the words for them.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) sql: &'static str,
    /// The kind of thing that the name is of, and a label for each amount.
    pub(super) words: [&'static str; 3],
}

pub(super) async fn compare(
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
pub(super) fn pieces(last: i64, piece: i64) -> impl Iterator<Item = (i64, i64)> {
    std::iter::successors(Some(0i64), move |after| after.checked_add(piece))
        .take_while(move |after| *after < last)
        .map(move |after| (after, after.saturating_add(piece)))
}

/// The number that a statement returns.
pub(super) async fn number(
    connection: &mut Connection,
    sql: &'static str,
) -> Result<i64, StoreError> {
    let row = connection.row(sql, &[]).await?;
    row.map_or(Ok(0), |row| row.integer(0))
}

//! Usage records in pages.

use crate::db::{Readers, Row, StoreError, values};
use crate::ids::AccountId;
use crate::page::Page;
use crate::tokens::sql::token_sql;
use crate::usage::{UsageRecord, columns, read};

/// A usage record with its id and its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    pub id: i64,
    pub account: AccountId,
    pub record: UsageRecord,
}

/// A page of an account's usage records, newest first.
pub(crate) async fn page(
    readers: &Readers,
    account: &AccountId,
    page: Page,
) -> Result<Vec<UsageEntry>, StoreError> {
    let [before, limit] = page.bounds();
    let rows = readers
        .rows(
            token_sql!(
                "SELECT ",
                columns!(),
                " FROM usage_record u JOIN price p ON p.id = u.price
                 WHERE u.account = $1 AND u.id < $2 ORDER BY u.id DESC LIMIT $3"
            ),
            values![account.as_str(), before, limit],
        )
        .await?;
    rows.iter().map(entry).collect()
}

pub(super) fn entry(row: &Row) -> Result<UsageEntry, StoreError> {
    Ok(UsageEntry {
        id: row.integer(10)?,
        account: AccountId::from(row.text(11)?),
        record: read(row)?,
    })
}

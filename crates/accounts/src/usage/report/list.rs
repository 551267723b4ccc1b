//! Usage records in pages.

use crate::db::{Readers, Row, StoreError, values};
use crate::ids::AccountId;
use crate::page::Page;
use crate::usage::{UsageRecord, read};

/// A usage record with its id and its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    pub id: i64,
    pub account: AccountId,
    pub record: UsageRecord,
}

/// The columns that [`entry`] reads: those of a usage record, then the id and the account.
macro_rules! columns {
    () => {
        "u.request, u.attempt, u.api_key, u.model, u.prompt, u.cached, u.completion, u.reasoning,
         u.cost, u.outcome, u.source, u.started_at, u.ended_at, p.input, p.output, p.cached, u.promo, u.id, u.account"
    };
}

pub(super) use columns;

/// A page of an account's usage records, newest first.
pub(crate) async fn page(
    readers: &Readers,
    account: &AccountId,
    page: Page,
) -> Result<Vec<UsageEntry>, StoreError> {
    let [before, limit] = page.bounds();
    let rows = readers
        .rows(
            concat!(
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
        id: row.integer(17)?,
        account: AccountId::from(row.text(18)?),
        record: read(row)?,
    })
}

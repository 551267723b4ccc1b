//! Reports: usage, bills, the ledger and the audit log.

use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::audit::{self, AuditRecord};
use crate::db::StoreError;
use crate::ids::AccountId;
use crate::ledger::list::{self, LedgerRecord};
use crate::page::Page;
use crate::usage::report::export::{self, UsageDay, UsageFilter};
use crate::usage::report::list::UsageEntry;
use crate::usage::report::{self, BillLine, Cycle, list as usage_list};
use crate::usage::{self, UsageRecord};

impl Accounts {
    /// The newest usage records of an account, newest first.
    pub async fn usage(
        &self,
        account: &AccountId,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::newest(&self.0.readers, account, limit).await
    }

    /// Usage records of an account that ended at `time[0]` or later, and before `time[1]`; newest first.
    pub async fn usage_between(
        &self,
        account: &AccountId,
        time: [Timestamp; 2],
        limit: u32,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        usage::between(&self.0.readers, account, time, limit).await
    }

    /// The cost of an account's requests by cycle, model and price, oldest cycle first. `time` is a range: from
    /// `time[0]` to before `time[1]`.
    pub async fn bill(
        &self,
        account: &AccountId,
        cycle: Cycle,
        time: [Timestamp; 2],
    ) -> Result<Vec<BillLine>, StoreError> {
        report::bill(&self.0.readers, account, cycle, time).await
    }

    /// A page of an account's usage records, newest first.
    pub async fn usage_page(
        &self,
        account: &AccountId,
        page: Page,
    ) -> Result<Vec<UsageEntry>, StoreError> {
        usage_list::page(&self.0.readers, account, page).await
    }

    /// A page of an account's usage records, oldest first: those after the last record of the page before.
    pub async fn usage_records(
        &self,
        account: &AccountId,
        filter: &UsageFilter,
        last: Option<&UsageEntry>,
        limit: u32,
    ) -> Result<Vec<UsageEntry>, StoreError> {
        export::records(&self.0.readers, account, filter, last, limit).await
    }

    /// A page of an account's usage by day, oldest first: the lines after the last one of the page before.
    pub async fn usage_days(
        &self,
        account: &AccountId,
        filter: &UsageFilter,
        last: Option<&UsageDay>,
        limit: u32,
    ) -> Result<Vec<UsageDay>, StoreError> {
        export::days(&self.0.readers, account, filter, last, limit).await
    }

    /// Transactions of an account, newest first.
    pub async fn ledger(
        &self,
        account: &AccountId,
        page: Page,
    ) -> Result<Vec<LedgerRecord>, StoreError> {
        list::page(&self.0.readers, account, page).await
    }

    /// Transactions of all accounts, newest first.
    pub async fn whole_ledger(&self, page: Page) -> Result<Vec<LedgerRecord>, StoreError> {
        list::page_of_all(&self.0.readers, page).await
    }

    /// Every administrative act, newest first; of one account, or of all.
    pub async fn audit(
        &self,
        account: Option<&AccountId>,
        page: Page,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        audit::page(&self.0.readers, account, page).await
    }
}

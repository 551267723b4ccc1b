//! An account's view of itself and of its key.

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{Account, AdminError, BillLine, Caller, Cycle, KeyInfo, KeySpend, StoreError};

use crate::limits::{NotAdmitted, Quotas, Subject};
use crate::{Gateway, Refusal, STORE_RETRY};

/// How often an account may ask for its bills in a minute: each reads many records.
pub const BILLS_PER_MINUTE: u32 = 60;

impl Gateway {
    pub async fn own_account(&self, caller: &Caller) -> Result<Account, Refusal> {
        let account = self.0.accounts.account(caller.account.as_str()).await;
        account.map_err(refused)
    }

    /// The key of the request, and its spend so far.
    pub async fn own_key(&self, caller: &Caller) -> Result<(KeyInfo, KeySpend), Refusal> {
        let key = self.0.accounts.key(caller.key.as_str()).await;
        let spent = self.0.accounts.key_spend(&caller.key, self.now()).await;
        Ok((key.map_err(refused)?, spent.map_err(unreachable)?))
    }

    /// The lines of the account's bill, from the first time until before the second.
    pub async fn own_bill(
        &self,
        caller: &Caller,
        cycle: Cycle,
        time: [Timestamp; 2],
    ) -> Result<Vec<BillLine>, Refusal> {
        let subject = Subject {
            name: format!("bills:{}", caller.account).into(),
            quotas: Quotas {
                requests_per_minute: Some(BILLS_PER_MINUTE),
                ..Quotas::default()
            },
        };
        let admitted = self.0.limits.admit_request(vec![subject], Instant::now());
        let _permit = admitted.await.map_err(|denied| match denied {
            NotAdmitted::Denied(denied) => Refusal::BillsTooFast {
                retry_after: denied.retry_after,
            },
            NotAdmitted::Unavailable => Refusal::LimitsUnavailable {
                retry_after: STORE_RETRY,
            },
        })?;
        let lines = self.0.accounts.bill(&caller.account, cycle, time).await;
        lines.map_err(unreachable)
    }
}

fn refused(error: AdminError) -> Refusal {
    match error {
        AdminError::Store(error) => unreachable(error),
        error => Refusal::Internal(format!("a caller's own account or key: {error}")),
    }
}

fn unreachable(error: StoreError) -> Refusal {
    tracing::error!(%error, "a caller's account can't be read");
    Refusal::StoreUnavailable {
        retry_after: STORE_RETRY,
    }
}

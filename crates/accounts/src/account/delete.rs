//! Deleting accounts: a deleted account can't be used any more, and all its records stay.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::account::Account;
use crate::account::admin::{find, not_found, state};
use crate::audit::{Act, By, record};
use crate::db::{Connection, StoreError, values};
use crate::error::AdminError;
use crate::ids::AccountId;
use crate::key::admin::revoke_all;
use crate::ledger::movement::{Move, TransactionKind};
use crate::ledger::promo;
use crate::money::Nanos;
use crate::writer::{Operation, TxResult};

/// Separates a deleted account's old name from its id. No account can be given a name with it.
const MARK: &str = "~";

/// The rule for a balance that isn't zero when its account is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remainder {
    /// The account isn't deleted.
    Refuse,
    /// Promo credit expires, and an adjustment brings the rest to zero, also if the account owes it.
    WriteOff { reason: String },
}

#[derive(Debug)]
pub(crate) struct DeleteAccount {
    account: AccountId,
    remainder: Remainder,
    by: By,
}

impl DeleteAccount {
    pub(crate) fn new(account: &AccountId, remainder: Remainder, by: By) -> Self {
        DeleteAccount {
            account: account.clone(),
            remainder,
            by,
        }
    }

    /// The reason why the account can't be deleted, if there is one.
    async fn obstacle(
        &self,
        connection: &mut Connection,
        account: &Account,
    ) -> Result<Option<AdminError>, StoreError> {
        let sql = "SELECT 1 FROM hold WHERE account = $1 AND state = 'open' LIMIT 1";
        let open = connection.row(sql, values![self.account.as_str()]).await?;
        if open.is_some() {
            return Ok(Some(AdminError::NotEmpty(format!(
                "the account {} has open requests: suspend it, and delete it when they have ended",
                account.name
            ))));
        }
        let empty = account.posted == Nanos::ZERO && account.promo == Nanos::ZERO;
        if !empty && self.remainder == Remainder::Refuse {
            return Ok(Some(AdminError::NotEmpty(format!(
                "the account {} has a balance of {} USD: adjust it to 0, or write it off",
                account.name, account.posted
            ))));
        }
        Ok(None)
    }

    /// Brings the balance to zero, without telling webhooks that it is low.
    async fn write_off(
        &self,
        connection: &mut Connection,
        reason: &str,
    ) -> TxResult<(), AdminError> {
        let sql = "UPDATE balance SET low_balance = NULL WHERE account = $1";
        connection
            .execute(sql, values![self.account.as_str()])
            .await?;
        promo::end(connection, &self.account, self.by.now).await?;
        let Some(left) = find(connection, &self.account).await? else {
            return Ok(Err(not_found(&self.account)));
        };
        if left.posted != Nanos::ZERO {
            let amount = left.posted.checked_neg();
            let what = TransactionKind::Adjust {
                account: self.account.clone(),
                amount: crate::ledger::checked(amount)?,
            };
            let key = format!("delete:{}", self.account);
            let moving = match Move::new(what, &key, reason, self.by.clone()) {
                Ok(moving) => moving,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Err(Err(refusal)) = moving.apply(connection).await? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(()))
    }

    async fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        connection
            .execute(
                "UPDATE account SET name = name || $2 || id, deleted_at = $3 WHERE id = $1",
                values![self.account.as_str(), MARK, self.by.now],
            )
            .await?;
        let sql = "UPDATE balance SET low_balance = NULL, credit_limit = 0 WHERE account = $1";
        connection
            .execute(sql, values![self.account.as_str()])
            .await?;
        revoke_all(connection, &self.account, &self.by).await
    }
}

impl Operation for DeleteAccount {
    type Done = Account;
    type Refused = AdminError;
    type Answer = Result<Account, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Account, AdminError> {
        let id = self.account.as_str();
        // Locks the row until the transaction ends, on PostgreSQL.
        let touch = "UPDATE account SET tier = tier WHERE id = $1";
        connection.execute(touch, values![id]).await?;
        // Promo credit that has expired must not count as a balance.
        promo::expire(connection, &self.account, self.by.now).await?;
        let Some(old) = find(connection, &self.account).await? else {
            return Ok(Err(not_found(&self.account)));
        };
        if old.deleted_at.is_some() {
            return Ok(Ok(old));
        }
        if let Some(obstacle) = self.obstacle(connection, &old).await? {
            return Ok(Err(obstacle));
        }
        if let Remainder::WriteOff { reason } = &self.remainder
            && let Err(refusal) = self.write_off(connection, reason).await?
        {
            return Ok(Err(refusal));
        }
        self.write(connection).await?;
        let Some(new) = find(connection, &self.account).await? else {
            return Ok(Err(not_found(&self.account)));
        };
        let act = Act {
            name: "account.delete",
            account: &self.account,
            target: id,
            old: with_balance(&old),
            new: with_balance(&new),
        };
        record(connection, &self.by, &act).await?;
        Ok(Ok(new))
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn answer(self, outcome: TxResult<Account, AdminError>) -> Result<Account, AdminError> {
        outcome?
    }
}

fn with_balance(account: &Account) -> Value {
    let mut state = state(account);
    state["balance"] = json!(account.posted.to_string());
    state["deleted_at"] = json!(account.deleted_at.as_ref().map(Timestamp::to_string));
    state
}

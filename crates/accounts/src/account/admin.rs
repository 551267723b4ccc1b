//! Adding and changing accounts.

use serde_json::{Value, json};

use crate::account::{Account, ID_PREFIX, Suspension, check_name, columns, is_deleted, read};
use crate::audit::{Act, By, record};
use crate::db::{Connection, StoreError, values};
use crate::error::AdminError;
use crate::ids::{AccountId, random};
use crate::ledger::movement::{Move, TransactionKind};
use crate::money::Nanos;
use crate::quotas::by_model::ModelQuotas;
use crate::quotas::{Quotas, Tier};
use crate::text::{PLAIN, is_plain};
use crate::writer::{Operation, TxResult};

const ID_LEN: usize = 12;
/// The idempotency key of an account's opening credit.
const OPENING: &str = "opening";
const REASON_MAX: usize = 256;

/// Changes of an account; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    pub name: Option<String>,
    /// How far below zero the cash may go; not less than what is owed or held of it already.
    pub credit_limit: Option<Nanos>,
    pub low_balance: Option<Option<Nanos>>,
    /// `Some(None)` is the tier that follows from the top-ups.
    pub tier: Option<Option<Tier>>,
    /// Without any limit set, those of the tier apply.
    pub limits: Option<Quotas>,
    /// Replaces the limits of all models.
    pub model_limits: Option<ModelQuotas>,
    pub standing: Option<Standing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// New requests are refused, running ones finish.
    Suspended {
        reason: String,
    },
}

pub(super) fn not_found(account: &AccountId) -> AdminError {
    AdminError::NotFound {
        what: "account",
        name: account.to_string(),
    }
}

/// An account's state for the audit log.
pub(super) fn state(account: &Account) -> Value {
    let suspended = account.suspended.as_ref();
    json!({
        "name": account.name,
        "credit_limit": account.credit_limit.to_string(),
        "low_balance": account.low_balance.map(|amount| amount.to_string()),
        "tier": account.tier.map(Tier::name),
        "limits": account.limits.json(),
        "model_limits": account.model_limits.json(),
        "suspended": suspended.map(|suspended| suspended.reason.as_str()),
    })
}

#[derive(Debug)]
pub(crate) struct AddAccount {
    id: AccountId,
    name: String,
    /// The opening credit.
    credit: Option<Move>,
    by: By,
}

impl AddAccount {
    pub(crate) fn new(name: &str, credit: Nanos, by: By) -> Result<Self, AdminError> {
        check_name(name)?;
        let id = AccountId::from(format!("{ID_PREFIX}{}", random(ID_LEN)));
        let credit = match credit {
            Nanos::ZERO => None,
            amount => {
                let what = TransactionKind::Credit {
                    account: id.clone(),
                    amount,
                };
                Some(Move::new(what, OPENING, "opening credit", by.clone())?)
            }
        };
        let name = name.to_owned();
        Ok(AddAccount {
            id,
            name,
            credit,
            by,
        })
    }
}

impl Operation for AddAccount {
    type Done = Account;
    type Refused = AdminError;
    type Answer = Result<Account, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Account, AdminError> {
        let made = connection
            .row(
                "INSERT INTO account (id, name, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO NOTHING RETURNING id",
                values![self.id.as_str(), self.name.as_str(), self.by.now],
            )
            .await?;
        if made.is_none() {
            return Ok(Err(AdminError::NameTaken(self.name.clone())));
        }
        connection
            .execute(
                "INSERT INTO balance (account) VALUES ($1)",
                values![self.id.as_str()],
            )
            .await?;
        let Some(account) = find(connection, &self.id).await? else {
            return Err(StoreError::contradiction("a new account can't be found"));
        };
        let act = Act {
            name: "account.add",
            account: &self.id,
            target: self.id.as_str(),
            old: Value::Null,
            new: state(&account),
        };
        record(connection, &self.by, &act).await?;
        let Some(credit) = &self.credit else {
            return Ok(Ok(account));
        };
        if let Err(Err(refusal)) = credit.apply(connection).await? {
            return Ok(Err(refusal));
        }
        let account = find(connection, &self.id).await?;
        Ok(account.ok_or_else(|| not_found(&self.id)))
    }

    fn answer(self, outcome: TxResult<Account, AdminError>) -> Result<Account, AdminError> {
        outcome?
    }
}

pub(super) async fn find(
    connection: &mut Connection,
    account: &AccountId,
) -> Result<Option<Account>, StoreError> {
    let row = connection
        .row(
            concat!(
                "SELECT ",
                columns!(),
                " FROM account JOIN balance ON balance.account = account.id WHERE account.id = $1"
            ),
            values![account.as_str()],
        )
        .await?;
    row.as_ref().map(read).transpose()
}

#[derive(Debug)]
pub(crate) struct UpdateAccount {
    account: AccountId,
    change: AccountChange,
    by: By,
}

impl UpdateAccount {
    pub(crate) fn new(
        account: &AccountId,
        change: AccountChange,
        by: By,
    ) -> Result<Self, AdminError> {
        if let Some(name) = &change.name {
            check_name(name)?;
        }
        let amounts = [
            ("credit_limit", change.credit_limit),
            ("low_balance", change.low_balance.flatten()),
        ];
        for (field, amount) in amounts {
            if amount.is_some_and(Nanos::is_negative) {
                let message = "a credit limit and a low balance can't be negative";
                return Err(AdminError::invalid(field, message));
            }
        }
        if let Some(Standing::Suspended { reason }) = &change.standing
            && (!(1..=REASON_MAX).contains(&reason.len()) || !is_plain(reason))
        {
            let message =
                format!("the reason of a suspension has 1 to {REASON_MAX} bytes and {PLAIN}");
            return Err(AdminError::invalid("suspended.reason", message));
        }
        change.limits.unwrap_or_default().check()?;
        if let Some(model_limits) = &change.model_limits {
            model_limits.check()?;
        }
        Ok(UpdateAccount {
            account: account.clone(),
            change,
            by,
        })
    }

    fn changed(&self, old: &Account) -> Account {
        let change = self.change.clone();
        let suspended = match (change.standing, &old.suspended) {
            (None, suspended) => suspended.clone(),
            (Some(Standing::Active), _) => None,
            (Some(Standing::Suspended { reason }), suspended) => Some(Suspension {
                since: suspended.as_ref().map_or(self.by.now, |old| old.since),
                reason,
            }),
        };
        Account {
            name: change.name.unwrap_or_else(|| old.name.clone()),
            credit_limit: change.credit_limit.unwrap_or(old.credit_limit),
            low_balance: change.low_balance.unwrap_or(old.low_balance),
            tier: change.tier.unwrap_or(old.tier),
            limits: change.limits.unwrap_or(old.limits),
            model_limits: change
                .model_limits
                .unwrap_or_else(|| old.model_limits.clone()),
            suspended,
            ..old.clone()
        }
    }

    async fn write(&self, connection: &mut Connection, new: &Account) -> Result<(), StoreError> {
        let [requests, tokens, concurrent] = new.limits.columns();
        let suspended = new.suspended.as_ref();
        let model_limits = new.model_limits.text();
        connection
            .execute(
                "UPDATE account SET name = $2, tier = $3, requests_per_minute = $4, tokens_per_minute = $5,
                     concurrent_requests = $6, suspended_at = $7, suspended_reason = $8, model_limits = $9
                 WHERE id = $1",
                values![
                    self.account.as_str(),
                    new.name.as_str(),
                    new.tier.map(Tier::name),
                    requests,
                    tokens,
                    concurrent,
                    suspended.map(|suspended| suspended.since),
                    suspended.map(|suspended| suspended.reason.as_str()),
                    model_limits.as_deref(),
                ],
            )
            .await?;
        let low_balance = new.low_balance.map(Nanos::get);
        let sql = "UPDATE balance SET low_balance = $2 WHERE account = $1";
        connection
            .execute(sql, values![self.account.as_str(), low_balance])
            .await
    }

    /// Sets the limit. Refused if more than that is owed or held, or if the balance plus the limit would overflow.
    async fn set_credit_limit(
        &self,
        connection: &mut Connection,
        limit: Nanos,
    ) -> TxResult<(), AdminError> {
        let room = Nanos::MAX.checked_sub(limit).unwrap_or(Nanos::ZERO);
        let set = connection
            .row(
                "UPDATE balance SET credit_limit = $2
                 WHERE account = $1 AND posted - held - promo + $2 >= 0 AND posted <= $3 RETURNING credit_limit",
                values![self.account.as_str(), limit, room],
            )
            .await?;
        if set.is_some() {
            return Ok(Ok(()));
        }
        let message = format!(
            "the credit limit can't be {limit} USD: more than that is owed or held already, or it is too large"
        );
        Ok(Err(AdminError::invalid("credit_limit", message)))
    }
}

impl Operation for UpdateAccount {
    type Done = Account;
    type Refused = AdminError;
    type Answer = Result<Account, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Account, AdminError> {
        let id = self.account.as_str();
        // Locks the row until the transaction ends, on PostgreSQL.
        let touch = "UPDATE account SET tier = tier WHERE id = $1";
        connection.execute(touch, values![id]).await?;
        let Some(old) = find(connection, &self.account).await? else {
            return Ok(Err(not_found(&self.account)));
        };
        if old.deleted_at.is_some() {
            return Ok(Err(is_deleted(&self.account)));
        }
        let new = self.changed(&old);
        if new == old {
            return Ok(Ok(old));
        }
        let sql = "SELECT 1 FROM account WHERE name = $2 AND id <> $1";
        let taken = connection.row(sql, values![id, new.name.as_str()]).await?;
        if taken.is_some() {
            return Ok(Err(AdminError::NameTaken(new.name)));
        }
        self.write(connection, &new).await?;
        if new.credit_limit != old.credit_limit
            && let Err(refusal) = self.set_credit_limit(connection, new.credit_limit).await?
        {
            return Ok(Err(refusal));
        }
        let act = Act {
            name: "account.update",
            account: &self.account,
            target: id,
            old: state(&old),
            new: state(&new),
        };
        record(connection, &self.by, &act).await?;
        let account = find(connection, &self.account).await?;
        Ok(account.ok_or_else(|| not_found(&self.account)))
    }

    fn answer(self, outcome: TxResult<Account, AdminError>) -> Result<Account, AdminError> {
        outcome?
    }
}

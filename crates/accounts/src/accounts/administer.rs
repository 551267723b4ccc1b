//! Administrative acts on accounts, keys and money, and the lists that administrators read. Each act except
//! pruning has an actor and a time, and is in the audit log.

use jiff::{SignedDuration, Timestamp};

use crate::account::admin::{AccountChange, AddAccount, UpdateAccount};
use crate::account::delete::{DeleteAccount, Remainder};
use crate::account::{self, Account};
use crate::accounts::Accounts;
use crate::audit::By;
use crate::clock;
use crate::db::StoreError;
use crate::error::AdminError;
use crate::ids::{AccountId, KeyId};
use crate::key::admin::{KeyChange, KeyDraft, RevokeKey, UpdateKey};
use crate::key::cap::{self, KeySpend};
use crate::key::rotate::RotationDraft;
use crate::key::{self, KeyInfo, KeyOptions, NewKey};
use crate::ledger::movement::{Adjustment, Move, Moved, Promo, Refund, TransactionKind};
use crate::ledger::top_up;
use crate::money::Nanos;
use crate::page::PAGE_MAX;
use crate::usage::prune::{self, Prune};

impl Accounts {
    /// Adds an account. Names are unique.
    pub async fn add_account(&self, name: &str, by: impl Into<By>) -> Result<Account, AdminError> {
        self.open_account(name, Nanos::ZERO, by).await
    }

    /// Adds an account with opening credit: both or neither.
    pub async fn open_account(
        &self,
        name: &str,
        credit: Nanos,
        by: impl Into<By>,
    ) -> Result<Account, AdminError> {
        let add = AddAccount::new(name, credit, by.into())?;
        self.0.writer.write(add).await
    }

    pub async fn update_account(
        &self,
        account: &AccountId,
        change: AccountChange,
        by: impl Into<By>,
    ) -> Result<Account, AdminError> {
        let update = UpdateAccount::new(account, change, by.into())?;
        self.0.writer.write(update).await
    }

    /// Revokes the account's keys and makes it unusable; its records stay, and its name is free again. Deleting again
    /// changes nothing. Refused while requests are open; `remainder` says what happens to a balance that isn't zero.
    pub async fn delete_account(
        &self,
        account: &AccountId,
        remainder: Remainder,
        by: impl Into<By>,
    ) -> Result<Account, AdminError> {
        let delete = DeleteAccount::new(account, remainder, by.into());
        self.0.writer.write(delete).await
    }

    /// All accounts, by name, deleted ones too.
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        account::list(&self.0.readers).await
    }

    /// A page of accounts by name: those after the last name of the page before, `""` for the first.
    pub async fn accounts_after(&self, name: &str, limit: u32) -> Result<Vec<Account>, StoreError> {
        account::after(&self.0.readers, name, limit).await
    }

    pub async fn account(&self, name_or_id: &str) -> Result<Account, AdminError> {
        account::find(&self.0.readers, name_or_id).await
    }

    /// Tops up an account. The same idempotency key again changes nothing and returns the first result.
    pub async fn credit(
        &self,
        account: &AccountId,
        amount: Nanos,
        idempotency_key: &str,
        reason: &str,
        by: impl Into<By>,
    ) -> Result<Moved, AdminError> {
        let account = account.clone();
        let what = TransactionKind::Credit { account, amount };
        self.move_money(what, idempotency_key, reason, by.into())
            .await
    }

    pub async fn adjust(
        &self,
        adjustment: Adjustment,
        by: impl Into<By>,
    ) -> Result<Moved, AdminError> {
        let Adjustment {
            account,
            amount,
            idempotency_key,
            reason,
        } = adjustment;
        let what = TransactionKind::Adjust { account, amount };
        self.move_money(what, &idempotency_key, &reason, by.into())
            .await
    }

    pub async fn give_promo(&self, promo: Promo, by: impl Into<By>) -> Result<Moved, AdminError> {
        let Promo {
            account,
            amount,
            expires_at,
            idempotency_key,
            reason,
        } = promo;
        let what = TransactionKind::Promo {
            account,
            amount,
            expires_at,
        };
        self.move_money(what, &idempotency_key, &reason, by.into())
            .await
    }

    pub async fn refund(&self, refund: Refund, by: impl Into<By>) -> Result<Moved, AdminError> {
        let Refund {
            request,
            attempt,
            amount,
            idempotency_key,
            reason,
        } = refund;
        let what = TransactionKind::Refund {
            request,
            attempt,
            amount,
        };
        self.move_money(what, &idempotency_key, &reason, by.into())
            .await
    }

    async fn move_money(
        &self,
        what: TransactionKind,
        idempotency_key: &str,
        reason: &str,
        by: By,
    ) -> Result<Moved, AdminError> {
        let movement = Move::new(what, idempotency_key, reason, by)?;
        self.0.writer.write(movement).await
    }

    /// The highest sum of an account's top-ups within one UTC month, of the current month and the two before.
    pub async fn highest_monthly_top_up(
        &self,
        account: &AccountId,
        now: Timestamp,
    ) -> Result<Nanos, StoreError> {
        top_up::highest_monthly(&self.0.readers, account, now).await
    }

    pub async fn add_key(
        &self,
        account: &AccountId,
        name: Option<&str>,
        by: impl Into<By>,
    ) -> Result<NewKey, AdminError> {
        let options = KeyOptions {
            name: name.map(str::to_owned),
            ..KeyOptions::default()
        };
        self.add_key_with(account, options, by).await
    }

    pub async fn add_key_with(
        &self,
        account: &AccountId,
        options: KeyOptions,
        by: impl Into<By>,
    ) -> Result<NewKey, AdminError> {
        self.make_key(KeyDraft::new(account, options, by.into())?)
            .await
    }

    /// Generates a key, and writes nothing. An expiry that would be refused is refused now.
    pub async fn draft_key(
        &self,
        account: &AccountId,
        options: KeyOptions,
        by: impl Into<By>,
    ) -> Result<KeyDraft, AdminError> {
        let draft = KeyDraft::new(account, options, by.into())?;
        draft.0.expires_at(self.lapse(draft.0.now()).await?)?;
        Ok(draft)
    }

    /// The time by which things expire.
    async fn lapse(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let newest = clock::newest(&self.0.readers).await?;
        Ok(clock::lapse_by(newest, now))
    }

    /// Writes a drafted key: from now on it is valid.
    pub async fn make_key(&self, draft: KeyDraft) -> Result<NewKey, AdminError> {
        self.0.writer.write(draft.0).await
    }

    /// The keys of an account, oldest first.
    pub async fn keys(&self, account: &AccountId) -> Result<Vec<KeyInfo>, StoreError> {
        key::list(&self.0.readers, account).await
    }

    /// The keys of all accounts: account by account, each oldest first.
    pub async fn all_keys(&self) -> Result<Vec<KeyInfo>, StoreError> {
        key::all(&self.0.readers).await
    }

    /// A page of an account's keys, oldest first: those after the last key of the page before.
    pub async fn keys_after(
        &self,
        account: &AccountId,
        after: Option<&KeyInfo>,
        limit: u32,
    ) -> Result<Vec<KeyInfo>, StoreError> {
        key::after(&self.0.readers, account, after, limit).await
    }

    pub async fn key(&self, id: &str) -> Result<KeyInfo, AdminError> {
        key::find(&self.0.readers, id).await
    }

    pub async fn update_key(
        &self,
        id: &str,
        change: KeyChange,
        by: impl Into<By>,
    ) -> Result<KeyInfo, AdminError> {
        let update = UpdateKey::new(id, change, by.into())?;
        self.0.writer.write(update).await
    }

    /// Gives a key a new secret; the old one is accepted for `grace` more.
    pub async fn rotate_key(
        &self,
        id: &str,
        grace: SignedDuration,
        by: impl Into<By>,
    ) -> Result<NewKey, AdminError> {
        self.make_rotation(RotationDraft::new(id, grace, by.into())?)
            .await
    }

    /// Generates a new secret for a key, and writes nothing. A grace period that would be refused is refused now.
    pub async fn draft_rotation(
        &self,
        id: &str,
        grace: SignedDuration,
        by: impl Into<By>,
    ) -> Result<RotationDraft, AdminError> {
        let draft = RotationDraft::new(id, grace, by.into())?;
        draft.0.check_grace(self.lapse(draft.0.now()).await?)?;
        Ok(draft)
    }

    /// Writes a drafted rotation: from now on the new secret is valid, and the old one until the grace is over.
    pub async fn make_rotation(&self, draft: RotationDraft) -> Result<NewKey, AdminError> {
        self.0.writer.write(draft.0).await
    }

    /// Revokes a key for good; revoking again changes nothing.
    pub async fn revoke_key(&self, id: &str, by: impl Into<By>) -> Result<KeyInfo, AdminError> {
        self.0.writer.write(RevokeKey::new(id, by.into())).await
    }

    /// The cost of a key's requests by period, and the amount that its open requests hold.
    pub async fn key_spend(&self, key: &KeyId, now: Timestamp) -> Result<KeySpend, StoreError> {
        cap::spend(&self.0.readers, key, now).await
    }

    /// Deletes the usage records that ended before a time, except for refunded ones. Bills by hour and refunds need the
    /// records; sums by day and longer stay. Deletes nothing while the clock can't be trusted.
    pub async fn prune_usage(&self, before: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let accounts = account::after(&self.0.readers, &after, PAGE_MAX).await?;
            let Some(last) = accounts.last() else {
                return Ok(());
            };
            after.clone_from(&last.name);
            for account in accounts.into_iter().map(|account| account.id) {
                let due = prune::due(&self.0.readers, &account, before).await?;
                let mut next = due.then_some((Timestamp::MIN, 0));
                while let Some(after) = next {
                    let prune = Prune {
                        account: account.clone(),
                        after,
                        before,
                        now,
                    };
                    next = self.0.writer.write(prune).await?;
                }
            }
        }
    }
}

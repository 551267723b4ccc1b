//! Notices: writes that no caller waits for. Checkpoints, holds that were dropped or may have been made, last uses of
//! keys, and accounts whose balance didn't cover a request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::account::AccountId;
use crate::clock::{self, CLOCK_GAP_MAX};
use crate::db::{Connection, StoreError, values};
use crate::events;
use crate::failpoint;
use crate::key::KeyId;
use crate::ledger::hold::Checkpoints;
use crate::ledger::settle::{Ending, How, end};
use crate::money::Counts;
use crate::spill::{Kept, KeptWhat, Spill};

/// The notices that wait for the next transaction. Not a queue: there is at most one of each kind for a hold, so the
/// size is bounded by this process's holds, the keys and the accounts, and a checkpoint that was noted before its hold
/// was dropped is written first.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<Noted>,
    wake: Notify,
    /// Where ends and checkpoints go while the database can't be written.
    spill: Option<Spill>,
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    checkpoints: BTreeMap<i64, Checkpoint>,
    /// Dropped holds: their account, and when they last had a checkpoint or an extension.
    abandoned: BTreeMap<i64, (AccountId, Timestamp)>,
    /// Last uses of keys. The writer isn't woken for them: they go with what is written next.
    used: BTreeMap<KeyId, UsedSecret>,
    /// Accounts whose balance didn't cover a request, and when. The writer isn't woken for them either.
    exhausted: BTreeMap<AccountId, Timestamp>,
    /// Attempts whose hold was being made when the connection broke. If it was made, no caller has it, and it is
    /// released.
    doubtful: BTreeMap<(String, i64), Doubtful>,
    /// The newest time that can be trusted. The writer isn't woken for it.
    newest: Option<Timestamp>,
}

/// When a key was last used, and whether with its newest secret.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsedSecret {
    pub(crate) at: Timestamp,
    pub(crate) current: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Doubtful {
    pub(crate) account: AccountId,
    pub(crate) node: Arc<str>,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    pub(crate) request: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) counts: Counts,
    pub(crate) now: Timestamp,
    /// The number of the checkpoint among those of its hold, from 1.
    pub(crate) number: u64,
    pub(crate) checkpoints: Arc<Checkpoints>,
}

impl Notices {
    pub(crate) fn new(spill: Option<Spill>) -> Self {
        Notices {
            spill,
            ..Notices::default()
        }
    }

    pub(crate) fn spill(&self) -> Option<&Spill> {
        self.spill.as_ref()
    }

    /// Frees the spill slot of a hold whose end is in the database.
    pub(crate) fn ended(&self, hold: i64) {
        if let Some(spill) = &self.spill {
            spill.free(hold);
        }
    }

    /// Notes the checkpoints in the spill file, as the database can't be written.
    pub(crate) fn keep_beside(&self, noted: &Noted) {
        let Some(spill) = &self.spill else { return };
        for (&hold, checkpoint) in &noted.checkpoints {
            let kept = Kept {
                hold,
                request: checkpoint.request.to_string(),
                attempt: checkpoint.attempt,
                counts: checkpoint.counts,
                at: checkpoint.now,
                what: KeptWhat::Delivered,
            };
            spill.note(kept, Arc::clone(&checkpoint.checkpoints), checkpoint.number);
        }
    }

    /// Marks the checkpoints as durable, and frees the spill slots of dropped holds: both are in the database now.
    pub(crate) fn written(&self, noted: &Noted) {
        for checkpoint in noted.checkpoints.values() {
            checkpoint.checkpoints.reach(checkpoint.number);
        }
        noted.abandoned.keys().for_each(|&hold| self.ended(hold));
    }

    pub(crate) fn newest(&self, newest: Timestamp) {
        self.waiting().newest = Some(newest);
    }

    pub(crate) fn checkpoint(&self, hold: i64, checkpoint: Checkpoint) {
        self.waiting().checkpoints.insert(hold, checkpoint);
        self.wake.notify_one();
    }

    pub(crate) fn abandon(&self, hold: i64, account: AccountId, at: Timestamp) {
        self.waiting().abandoned.insert(hold, (account, at));
        self.wake.notify_one();
    }

    pub(crate) fn doubt(&self, request: &str, attempt: i64, doubtful: Doubtful) {
        let attempt = (request.to_owned(), attempt);
        self.waiting().doubtful.insert(attempt, doubtful);
        self.wake.notify_one();
    }

    pub(crate) fn used(&self, key: &KeyId, secret: UsedSecret) {
        let mut waiting = self.waiting();
        let used = waiting.used.entry(key.clone()).or_insert(secret);
        used.at = secret.at;
        used.current |= secret.current;
    }

    pub(crate) fn exhausted(&self, account: &AccountId, at: Timestamp) {
        self.waiting().exhausted.insert(account.clone(), at);
    }

    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take(&self) -> Noted {
        std::mem::take(&mut self.waiting())
    }

    /// Puts back notices that were not written. Newer ones stay.
    pub(crate) fn put_back(&self, noted: Noted) {
        let mut waiting = self.waiting();
        for (hold, checkpoint) in noted.checkpoints {
            waiting.checkpoints.entry(hold).or_insert(checkpoint);
        }
        waiting.abandoned.extend(noted.abandoned);
        for (key, secret) in noted.used {
            waiting.used.entry(key).or_insert(secret);
        }
        for (account, at) in noted.exhausted {
            waiting.exhausted.entry(account).or_insert(at);
        }
        waiting.doubtful.extend(noted.doubtful);
        waiting.newest = waiting.newest.or(noted.newest);
    }

    fn waiting(&self) -> MutexGuard<'_, Noted> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    pub(crate) fn is_empty(&self) -> bool {
        self.checkpoints.is_empty()
            && self.abandoned.is_empty()
            && self.doubtful.is_empty()
            && self.used.is_empty()
            && self.exhausted.is_empty()
            && self.newest.is_none()
    }

    /// The accounts whose balances will be changed.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        let abandoned = self.abandoned.values().map(|(account, _)| account);
        let doubtful = self.doubtful.values().map(|doubtful| &doubtful.account);
        abandoned.chain(doubtful).chain(self.exhausted.keys())
    }

    pub(crate) async fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        for (&hold, checkpoint) in &self.checkpoints {
            write_checkpoint(connection, hold, checkpoint).await?;
            failpoint::pass("checkpoint-written");
        }
        for (&hold, &(_, now)) in &self.abandoned {
            end_abandoned(connection, hold, now).await?;
        }
        for ((request, attempt), doubtful) in &self.doubtful {
            let made = connection
                .row(
                    "SELECT id FROM hold WHERE request = $1 AND attempt = $2 AND node = $3 AND state = 'open'",
                    values![request.as_str(), *attempt, &*doubtful.node],
                )
                .await?;
            if let Some(hold) = made {
                end_abandoned(connection, hold.integer(0)?, doubtful.now).await?;
            }
        }
        for (key, &UsedSecret { at, current }) in &self.used {
            if current {
                let sql = "UPDATE api_key SET secret_used_at = $2 WHERE id = $1 AND secret_used_at IS NULL";
                connection.execute(sql, values![key.as_str(), at]).await?;
            }
            connection
                .execute(
                    "UPDATE api_key SET last_used_at = $2
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at NOT BETWEEN $2 AND $3)",
                    values![key.as_str(), at, at.saturating_add(CLOCK_GAP_MAX).unwrap_or(Timestamp::MAX)],
                )
                .await?;
        }
        for (account, &at) in &self.exhausted {
            events::exhausted(connection, account, at).await?;
        }
        if let Some(newest) = self.newest {
            clock::note(connection, newest).await?;
        }
        Ok(())
    }
}

async fn end_abandoned(
    connection: &mut Connection,
    hold: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection.savepoint().await?;
    let ending = Ending {
        hold,
        how: How::AtCheckpoint,
        now,
    };
    match end(connection, &ending).await {
        Ok(_) => connection.release().await,
        Err(error) if error.spoils_transaction() => Err(error),
        Err(error) => {
            // The hold stays open, and is recovered at the next boot.
            tracing::error!(%error, hold, "an abandoned hold can't be ended");
            connection.undo().await
        }
    }
}

async fn write_checkpoint(
    connection: &mut Connection,
    hold: i64,
    checkpoint: &Checkpoint,
) -> Result<(), StoreError> {
    let [prompt, cached, completion, reasoning] = checkpoint.counts.columns();
    connection
        .execute(
            "UPDATE hold SET prompt = $2, cached = $3, completion = $4, reasoning = $5, checkpoint_at = $6
             WHERE id = $1 AND state = 'open'",
            values![hold, prompt, cached, completion, reasoning, checkpoint.now],
        )
        .await
}

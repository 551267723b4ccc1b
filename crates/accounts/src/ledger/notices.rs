//! Notices: writes that no caller waits for. Checkpoints, holds that were dropped or may have been made, last uses of
//! keys, and accounts whose balance didn't cover a request.

mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::ids::{AccountId, KeyId};
use crate::ledger::checkpoints::Checkpoints;
use crate::spill::{Kept, KeptWhat, Spill};
use crate::tokens::Counts;

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

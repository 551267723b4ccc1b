//! Holds: money that is reserved for what an open request may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::db::StoreError;
use crate::ids::{AccountId, KeyId};
use crate::key::caller::Caller;
use crate::key::cap::CapPeriod;
use crate::lease::Lease;
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::notices::{Checkpoint, Notices};
use crate::ledger::settlement::Settlement;
use crate::money::Nanos;
use crate::spill::{Kept, KeptWhat, SpillError};
use crate::tokens::{Counts, Price};

/// A hold to be made for an attempt of a request.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Our own id of the request, never one that a caller chose.
    pub request: String,
    pub attempt: u32,
    pub caller: Caller,
    pub model: String,
    pub price: Price,
    pub amount: Nanos,
    pub now: Timestamp,
}

/// The row of a hold that was just made.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) id: i64,
    pub(crate) amount: Nanos,
    /// Whether the hold may contain promo credit.
    pub(crate) with_promo: bool,
}

/// A hold on its way to the disk. Dropping it releases the hold as soon as it is made.
#[derive(Debug)]
pub struct PendingHold {
    answer: oneshot::Receiver<Result<Hold, HoldError>>,
}

impl PendingHold {
    pub(crate) fn new(answer: oneshot::Receiver<Result<Hold, HoldError>>) -> Self {
        PendingHold { answer }
    }

    /// Waits until the hold is on the disk. The error says why there is no hold.
    pub async fn durable(self) -> Result<Hold, HoldError> {
        self.answer
            .await
            .unwrap_or_else(|_| Err(HoldError::Store(StoreError::closed())))
    }
}

/// Money held for one attempt of a request. It ends in exactly one settle, release or expiry; when
/// it is dropped, the writer settles it at its last checkpoint.
#[derive(Debug)]
pub struct Hold {
    facts: Box<Facts>,
    notices: Arc<Notices>,
    lease: Arc<Lease>,
    ended: bool,
}

#[derive(Debug)]
struct Facts {
    id: i64,
    request: Arc<str>,
    attempt: u32,
    account: AccountId,
    key: KeyId,
    capped: bool,
    with_promo: bool,
    price: Price,
    amount: Nanos,
    extensions: u32,
    /// The time of its last checkpoint or extension, in milliseconds since 1970.
    seen_ms: AtomicI64,
    checkpoints: Arc<Checkpoints>,
}

impl Hold {
    pub(crate) fn new(
        taken: Taken,
        new: NewHold,
        notices: Arc<Notices>,
        lease: Arc<Lease>,
    ) -> Self {
        let facts = Facts {
            id: taken.id,
            request: new.request.into(),
            attempt: new.attempt,
            account: new.caller.account,
            key: new.caller.key,
            capped: new.caller.capped,
            with_promo: taken.with_promo,
            price: new.price,
            amount: taken.amount,
            extensions: 0,
            seen_ms: AtomicI64::new(new.now.as_millisecond()),
            checkpoints: Arc::default(),
        };
        Hold {
            facts: Box::new(facts),
            notices,
            lease,
            ended: false,
        }
    }

    /// Whether output may be handed out now: while the lease is valid, no other node can have ended the hold.
    pub fn is_leased(&self) -> bool {
        self.lease.is_valid()
    }

    /// Waits for a valid lease, no longer than a transaction may take. Returns whether output may be handed out.
    pub async fn wait_leased(&self) -> bool {
        self.lease.wait().await
    }

    pub fn request(&self) -> &str {
        &self.facts.request
    }

    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    pub fn account(&self) -> &AccountId {
        &self.facts.account
    }

    /// The price at admission, which applies whatever happens to prices meanwhile.
    pub fn price(&self) -> Price {
        self.facts.price
    }

    /// The most that can be charged.
    pub fn amount(&self) -> Nanos {
        self.facts.amount
    }

    pub(crate) fn id(&self) -> i64 {
        self.facts.id
    }

    /// Called once the end of the hold is in the database.
    pub(crate) fn close(&mut self) {
        self.ended = true;
        self.notices.ended(self.facts.id);
    }

    /// Notes how the request ended beside the database, which can't be written now.
    pub(crate) async fn keep(&self, settlement: Settlement) -> Result<(), SpillError> {
        let Some(spill) = self.notices.spill() else {
            return Err(SpillError::new("there is no room for it"));
        };
        let Settlement {
            counts,
            outcome,
            source,
            now,
        } = settlement;
        let what = KeptWhat::Ended { outcome, source };
        spill.keep(self.kept(what, counts, now)).await
    }

    fn kept(&self, what: KeptWhat, counts: Counts, at: Timestamp) -> Kept {
        Kept {
            hold: self.facts.id,
            request: self.facts.request.to_string(),
            attempt: self.facts.attempt,
            counts,
            at,
            what,
        }
    }

    pub(crate) fn note(&self, counts: Counts, now: Timestamp) {
        self.facts
            .seen_ms
            .store(now.as_millisecond(), Ordering::Relaxed);
        let checkpoints = Arc::clone(&self.facts.checkpoints);
        let checkpoint = Checkpoint {
            request: Arc::clone(&self.facts.request),
            attempt: self.facts.attempt,
            counts,
            now,
            number: checkpoints.next(),
            checkpoints,
        };
        self.notices.checkpoint(self.facts.id, checkpoint);
    }

    /// Whether the last checkpoint is durable, in the database or beside it.
    pub fn is_checkpoint_durable(&self) -> bool {
        self.facts.checkpoints.are_durable()
    }

    /// Keeps a checkpoint beside the database, durably. Without room for that in the configuration it does nothing.
    pub(crate) async fn keep_checkpoint(
        &self,
        counts: Counts,
        now: Timestamp,
    ) -> Result<(), SpillError> {
        let Some(spill) = self.notices.spill() else {
            return Ok(());
        };
        let kept = self.kept(KeptWhat::Delivered, counts, now);
        spill.keep(kept).await
    }

    /// The next extension. Each one has a number, by which a replay is told from another extension.
    pub(crate) fn extension(&mut self, more: Nanos, now: Timestamp) -> Result<Extend, StoreError> {
        let facts = &mut self.facts;
        let too_many = || StoreError::contradiction("a hold can't be extended that often");
        facts.extensions = facts.extensions.checked_add(1).ok_or_else(too_many)?;
        *facts.seen_ms.get_mut() = now.as_millisecond();
        Ok(Extend {
            hold: facts.id,
            account: facts.account.clone(),
            key: facts.key.clone(),
            capped: facts.capped,
            held: facts.amount,
            more,
            idempotency_key: format!(
                "extend:{}:{}:{}",
                facts.request, facts.attempt, facts.extensions
            ),
            now,
        })
    }

    pub(crate) fn extended(&mut self, extended: Extended) {
        self.facts.amount = extended.amount;
        self.facts.with_promo |= extended.with_promo;
    }

    /// Whether the hold may contain promo credit.
    pub(crate) fn has_promo(&self) -> bool {
        self.facts.with_promo
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.ended {
            let seen = Timestamp::from_millisecond(self.facts.seen_ms.load(Ordering::Relaxed));
            self.notices.abandon(
                self.facts.id,
                self.facts.account.clone(),
                seen.unwrap_or(Timestamp::UNIX_EPOCH),
            );
        }
    }
}

/// An extension of a hold, to be written.
#[derive(Debug)]
pub(crate) struct Extend {
    pub(crate) hold: i64,
    pub(crate) account: AccountId,
    pub(crate) key: KeyId,
    pub(crate) capped: bool,
    /// The amount that the hold has already.
    pub(crate) held: Nanos,
    pub(crate) more: Nanos,
    pub(crate) idempotency_key: String,
    pub(crate) now: Timestamp,
}

/// The hold after an extension.
#[derive(Debug)]
pub(crate) struct Extended {
    pub(crate) amount: Nanos,
    /// Whether promo credit may have been taken for it.
    pub(crate) with_promo: bool,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldError {
    #[error("the balance is too low: {available} USD are available")]
    BalanceTooLow { available: Nanos },
    /// The balance would suffice if no other requests were open.
    #[error("open requests hold {held} USD: {available} USD are available")]
    InFlight { available: Nanos, held: Nanos },
    /// The balance would suffice, but a spend cap of the key doesn't allow it; `in_flight` if only because other
    /// requests of the key are open.
    #[error("the key's spend cap (the {period}'s) leaves {available} USD")]
    KeyCap {
        period: CapPeriod,
        available: Nanos,
        in_flight: bool,
    },
    /// The writer's queue is full.
    #[error("too many holds wait to be written")]
    Overloaded,
    /// The hold to extend has ended already, or the attempt was settled before.
    #[error("the hold has ended")]
    Ended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

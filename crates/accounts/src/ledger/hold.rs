//! Holds: money that an open request may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::account::AccountId;
use crate::db::StoreError;
use crate::key::KeyId;
use crate::key::caller::Caller;
use crate::key::cap::CapPeriod;
use crate::ledger::extend::{Extend, Extended};
use crate::ledger::notices::{Checkpoint, Notices};
use crate::ledger::take::Taken;
use crate::money::{Counts, Nanos, Price};

/// What to hold, for which attempt of which request.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Our own id of the request, never one that a caller chose.
    pub request: String,
    pub attempt: u32,
    pub caller: Caller,
    pub model: String,
    pub price: Price,
    pub amount: Nanos,
    /// When others may end the hold if nothing is heard of it; extending it and checkpoints renew it
    /// for as long again.
    pub expires_at: Timestamp,
    pub now: Timestamp,
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

    /// The hold once it is on the disk, or why there is none.
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
    ended: bool,
}

#[derive(Debug)]
struct Facts {
    id: i64,
    request: String,
    attempt: u32,
    account: AccountId,
    key: KeyId,
    capped: bool,
    gifts: bool,
    price: Price,
    amount: Nanos,
    lifetime: SignedDuration,
    extensions: u32,
    /// When it was last heard of, in milliseconds.
    seen_ms: AtomicI64,
}

impl Hold {
    pub(crate) fn new(taken: Taken, new: NewHold, notices: Arc<Notices>) -> Self {
        let facts = Facts {
            id: taken.id,
            request: new.request,
            attempt: new.attempt,
            account: new.caller.account,
            key: new.caller.key,
            capped: new.caller.capped,
            gifts: taken.gifts,
            price: new.price,
            amount: taken.amount,
            lifetime: new.expires_at.duration_since(new.now),
            extensions: 0,
            seen_ms: AtomicI64::new(new.now.as_millisecond()),
        };
        Hold {
            facts: Box::new(facts),
            notices,
            ended: false,
        }
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

    /// The end of the hold is in the database.
    pub(crate) fn close(&mut self) {
        self.ended = true;
    }

    pub(crate) fn note(&self, counts: Counts, now: Timestamp) {
        self.facts
            .seen_ms
            .store(now.as_millisecond(), Ordering::Relaxed);
        let expires_at = later(now, self.facts.lifetime);
        self.notices.checkpoint(
            self.facts.id,
            Checkpoint {
                counts,
                now,
                expires_at,
            },
        );
    }

    /// The next extension; each has a number, so that a replay can be told from another one.
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
            expires_at: later(now, facts.lifetime),
            now,
        })
    }

    pub(crate) fn extended(&mut self, extended: Extended) {
        self.facts.amount = extended.amount;
        self.facts.gifts |= extended.gifts;
    }

    /// Whether it may hold promotional credit.
    pub(crate) fn has_gifts(&self) -> bool {
        self.facts.gifts
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

fn later(now: Timestamp, lifetime: SignedDuration) -> Timestamp {
    now.checked_add(lifetime).unwrap_or(Timestamp::MAX)
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldError {
    #[error("the balance is too low: {available} USD are available")]
    BalanceTooLow { available: Nanos },
    /// The balance would do, were it not for open requests.
    #[error("open requests hold {held} USD: {available} USD are available")]
    InFlight { available: Nanos, held: Nanos },
    /// The balance would do, but a spend cap of the key doesn't allow it; if `in_flight`, because its other
    /// requests are open.
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

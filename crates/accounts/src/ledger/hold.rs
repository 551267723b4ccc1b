//! Holds: money that an open request may cost.

use jiff::Timestamp;

use crate::db::StoreError;
use crate::key::Caller;
use crate::money::{Nanos, Price};

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
    /// When the hold ends by itself if nothing is heard of it; extending and checkpoints renew it
    /// for as long again.
    pub expires_at: Timestamp,
    pub now: Timestamp,
}

/// A hold on its way to the disk. Dropping it releases the hold as soon as it is made.
#[derive(Debug)]
pub struct PendingHold {}

impl PendingHold {
    pub async fn durable(self) -> Result<Hold, HoldError> {
        todo!()
    }
}

/// Money held for one attempt of a request. It ends in exactly one settle, release or expiry; when
/// it is dropped, the writer settles it at its last checkpoint.
#[derive(Debug)]
pub struct Hold {}

impl Hold {
    pub fn amount(&self) -> Nanos {
        todo!()
    }

    pub fn price(&self) -> Price {
        todo!()
    }

    pub fn request(&self) -> &str {
        todo!()
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldError {
    #[error("the balance is too low: {available} USD are available")]
    BalanceTooLow { available: Nanos },
    /// The balance would do, were it not for open requests.
    #[error("open requests hold {held} USD: {available} USD are available")]
    InFlight { available: Nanos, held: Nanos },
    /// The writer's queue is full.
    #[error("too many holds wait to be written")]
    Overloaded,
    /// The hold to extend has expired, or the attempt has been settled already.
    #[error("the hold has ended")]
    Ended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

//! The end of a hold as data: how it ends, what it costs, and the row that it leaves.

use jiff::Timestamp;

use crate::ids::AccountId;
use crate::ledger::hold::Hold;
use crate::ledger::settlement::{Outcome, Source};
use crate::money::Nanos;
use crate::tokens::{Counts, Price};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) hold: i64,
    pub(crate) kind: EndKind,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum EndKind {
    Settle {
        counts: Counts,
        outcome: Outcome,
        source: Source,
    },
    /// Nothing is charged.
    Release,
    /// The process is gone: charged for what the last checkpoint says was delivered, or released without one.
    AtCheckpoint,
}

impl EndKind {
    /// The hold's state afterwards: without a checkpoint, and with one.
    pub(crate) fn states(self) -> [&'static str; 2] {
        match self {
            EndKind::Settle { .. } => ["settled", "settled"],
            EndKind::Release => ["released", "released"],
            EndKind::AtCheckpoint => ["released", "settled"],
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) charged: Nanos,
    /// Whether there was anything to charge for.
    pub(crate) used: bool,
}

/// The facts that decide the cost of a hold that ends.
#[derive(Debug)]
pub(crate) struct Closing<'a> {
    pub(crate) request: &'a str,
    pub(crate) price: Price,
    pub(crate) amount: Nanos,
}

impl<'a> Closing<'a> {
    pub(crate) fn of(hold: &'a Hold) -> Self {
        Closing {
            request: hold.request(),
            price: hold.price(),
            amount: hold.amount(),
        }
    }

    /// The cost of `counts`, but never more than what was held.
    pub(crate) fn cost(&self, counts: &Counts) -> Nanos {
        match self.price.cost(counts) {
            Some(cost) if cost <= self.amount => cost,
            cost => {
                let (request, held) = (self.request, self.amount);
                tracing::error!(request, ?cost, %held, ?counts, "a request cost more than was held for it");
                self.amount
            }
        }
    }
}

/// The row of a hold that was just ended.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) request: String,
    pub(crate) attempt: i64,
    pub(crate) account: AccountId,
    pub(crate) api_key: String,
    pub(crate) model: String,
    pub(crate) price_version: i64,
    pub(crate) price: Price,
    pub(crate) amount: Nanos,
    /// The part of the amount that is promo credit.
    pub(crate) promo: Nanos,
    pub(crate) created_at: Timestamp,
    /// The counts of the last checkpoint, if there was one.
    pub(crate) delivered: Option<Counts>,
}

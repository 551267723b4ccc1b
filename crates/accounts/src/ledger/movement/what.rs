//! What moves, and what came of it.

use jiff::Timestamp;

use crate::account::{AccountId, AdminError};
use crate::money::Nanos;

/// Corrects a balance by a signed amount of cash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    pub account: AccountId,
    /// Less than 0 takes away, but never more than the credit limit covers.
    pub amount: Nanos,
    pub idempotency_key: String,
    pub reason: String,
}

/// Gives promotional credit, which is used before cash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromoGift {
    pub account: AccountId,
    pub amount: Nanos,
    pub expires_at: Timestamp,
    pub idempotency_key: String,
    pub reason: String,
}

/// Gives back what a request cost, or a part of it: cash as cash, and promotional credit as such, where it
/// has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub request: String,
    pub attempt: u32,
    /// `None` is all that was not refunded before.
    pub amount: Option<Nanos>,
    pub idempotency_key: String,
    pub reason: String,
}

/// Money that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The ledger's transaction.
    pub transaction: i64,
    pub account: AccountId,
    /// What the account got; less than 0 if it was taken away.
    pub amount: Nanos,
    /// The account's, right after.
    pub posted: Nanos,
    /// When.
    pub at: Timestamp,
    /// Whether the idempotency key had been used: then this is the first result.
    pub replayed: bool,
}

/// What kind of movement, and what only that kind has.
#[derive(Debug)]
pub(crate) enum What {
    Credit {
        account: AccountId,
        amount: Nanos,
    },
    Adjust {
        account: AccountId,
        amount: Nanos,
    },
    Promo {
        account: AccountId,
        amount: Nanos,
        expires_at: Timestamp,
    },
    Refund {
        request: String,
        attempt: u32,
        amount: Option<Nanos>,
    },
}

impl What {
    /// The kind of the transaction, and what its idempotency keys begin with.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            What::Credit { .. } => "credit",
            What::Adjust { .. } => "adjustment",
            What::Promo { .. } => "promo",
            What::Refund { .. } => "refund",
        }
    }

    pub(super) fn act(&self) -> &'static str {
        match self {
            What::Credit { .. } => "credit.top_up",
            What::Adjust { .. } => "credit.adjust",
            What::Promo { .. } => "credit.promo",
            What::Refund { .. } => "credit.refund",
        }
    }

    pub(super) fn amount(&self) -> Option<Nanos> {
        match self {
            What::Credit { amount, .. } | What::Adjust { amount, .. } => Some(*amount),
            What::Promo { amount, .. } => Some(*amount),
            What::Refund { amount, .. } => *amount,
        }
    }

    pub(super) fn check(&self, now: Timestamp) -> Result<(), AdminError> {
        match self {
            What::Refund { request, .. } if request.chars().any(char::is_control) => Err(
                AdminError::invalid("request", "a request's id has no control characters"),
            ),
            What::Adjust { amount, .. } if *amount == Nanos::ZERO => {
                Err(AdminError::invalid("amount", "an adjustment can't be 0"))
            }
            What::Adjust { .. } => Ok(()),
            What::Promo { expires_at, .. } if *expires_at <= now => Err(AdminError::invalid(
                "expires_at",
                "promotional credit must expire later than now",
            )),
            What::Credit { .. } | What::Promo { .. } | What::Refund { .. } => {
                match self.amount().filter(|amount| !amount.is_positive()) {
                    None => Ok(()),
                    Some(amount) => {
                        let kind = self.kind();
                        let message = format!("a {kind} must be more than 0, not {amount}");
                        Err(AdminError::invalid("amount", message))
                    }
                }
            }
        }
    }
}

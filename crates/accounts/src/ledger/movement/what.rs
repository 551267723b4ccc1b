//! What moves, and what came of it.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

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
    pub expires_at: Expiry,
    pub idempotency_key: String,
    pub reason: String,
}

/// When something expires, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    At(Timestamp),
    /// From when it is done. The same length is the same thing, whenever it is asked for again.
    In(SignedDuration),
}

impl Expiry {
    pub(crate) fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Expiry::At(at) => at,
            Expiry::In(length) => now.saturating_add(length).unwrap_or(Timestamp::MAX),
        }
    }

    fn asked(self) -> String {
        match self {
            Expiry::At(at) => at.to_string(),
            Expiry::In(length) => format!("in {} s", length.as_secs()),
        }
    }
}

impl From<Timestamp> for Expiry {
    fn from(at: Timestamp) -> Self {
        Expiry::At(at)
    }
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
        expires_at: Expiry,
    },
    Refund {
        request: String,
        attempt: u32,
        amount: Option<Nanos>,
    },
}

impl What {
    /// The kind of the transaction.
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

    /// What was asked, as it was asked: the same again is the same text.
    pub(super) fn asked(&self) -> String {
        let amount = self.amount().map(|amount| amount.to_string());
        let asked = match self {
            What::Credit { .. } | What::Adjust { .. } => json!([self.kind(), amount]),
            What::Promo { expires_at, .. } => json!([self.kind(), amount, expires_at.asked()]),
            What::Refund {
                request, attempt, ..
            } => json!([self.kind(), amount, request, attempt]),
        };
        asked.to_string()
    }

    pub(super) fn check(&self) -> Result<(), AdminError> {
        match self {
            What::Refund { request, .. } if request.chars().any(char::is_control) => Err(
                AdminError::invalid("request", "a request's id has no control characters"),
            ),
            What::Adjust { amount, .. } if *amount == Nanos::ZERO => {
                Err(AdminError::invalid("amount", "an adjustment can't be 0"))
            }
            What::Adjust { .. } => Ok(()),
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

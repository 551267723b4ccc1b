//! The kinds of movements, and their result.

use jiff::Timestamp;
use serde_json::json;

use crate::error::AdminError;
use crate::expiry::Expiry;
use crate::ids::AccountId;
use crate::money::Nanos;

/// Corrects a balance by a signed amount of cash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    pub account: AccountId,
    /// A negative amount takes away, but never more than the cash and the credit limit cover.
    pub amount: Nanos,
    pub idempotency_key: String,
    pub reason: String,
}

/// Gives promo credit, which is used before cash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promo {
    pub account: AccountId,
    pub amount: Nanos,
    pub expires_at: Expiry,
    pub idempotency_key: String,
    pub reason: String,
}

/// Gives back the cost of a request, or a part of it: cash as cash, and promo credit as such, where it has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub request: String,
    pub attempt: u32,
    /// `None` is all that was not refunded before.
    pub amount: Option<Nanos>,
    pub idempotency_key: String,
    pub reason: String,
}

/// The result of a movement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The id of the ledger's transaction.
    pub transaction: i64,
    pub account: AccountId,
    /// The amount that the account got; negative if it was taken away.
    pub amount: Nanos,
    /// The account's posted balance right after.
    pub posted: Nanos,
    /// The time of the movement.
    pub at: Timestamp,
    /// Whether the idempotency key had been used before: then this is the first result.
    pub replayed: bool,
}

/// The kind of a movement, and what only that kind has.
#[derive(Debug)]
pub(crate) enum TransactionKind {
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

impl TransactionKind {
    /// The kind of the transaction.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            TransactionKind::Credit { .. } => "credit",
            TransactionKind::Adjust { .. } => "adjustment",
            TransactionKind::Promo { .. } => "promo",
            TransactionKind::Refund { .. } => "refund",
        }
    }

    pub(super) fn act(&self) -> &'static str {
        match self {
            TransactionKind::Credit { .. } => "credit.top_up",
            TransactionKind::Adjust { .. } => "credit.adjust",
            TransactionKind::Promo { .. } => "credit.promo",
            TransactionKind::Refund { .. } => "credit.refund",
        }
    }

    pub(super) fn amount(&self) -> Option<Nanos> {
        match self {
            TransactionKind::Credit { amount, .. } | TransactionKind::Adjust { amount, .. } => {
                Some(*amount)
            }
            TransactionKind::Promo { amount, .. } => Some(*amount),
            TransactionKind::Refund { amount, .. } => *amount,
        }
    }

    /// The request as a JSON text: the same request again is the same text.
    pub(super) fn asked(&self) -> String {
        let amount = self.amount().map(|amount| amount.to_string());
        let asked = match self {
            TransactionKind::Credit { .. } | TransactionKind::Adjust { .. } => {
                json!([self.kind(), amount])
            }
            TransactionKind::Promo { expires_at, .. } => {
                json!([self.kind(), amount, expires_at.asked()])
            }
            TransactionKind::Refund {
                request, attempt, ..
            } => json!([self.kind(), amount, request, attempt]),
        };
        asked.to_string()
    }

    pub(super) fn check(&self) -> Result<(), AdminError> {
        match self {
            TransactionKind::Refund { request, .. } if request.chars().any(char::is_control) => {
                Err(AdminError::invalid(
                    "request",
                    "a request's id has no control characters",
                ))
            }
            TransactionKind::Adjust { amount, .. } if *amount == Nanos::ZERO => {
                Err(AdminError::invalid("amount", "an adjustment can't be 0"))
            }
            TransactionKind::Adjust { .. } => Ok(()),
            TransactionKind::Credit { .. }
            | TransactionKind::Promo { .. }
            | TransactionKind::Refund { .. } => {
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

//! Why a request isn't served, without HTTP. The server's error table turns a [`Refusal`] into a status and a message.

use std::time::Duration;

use weir_accounts::{CapPeriod, KeyRole};
use weir_engine::request::Invalid;
use weir_engine::{EngineError, PromptSize};

use crate::limits::{Denied, NotAdmitted, Which};

/// `Retry-After` while the database is unreachable or overloaded.
pub const STORE_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("no valid API key")]
    InvalidApiKey,
    #[error("model not found: {model}")]
    ModelNotFound { model: String },
    /// The key is restricted to other models.
    #[error("no access to model {model}")]
    ModelAccessDenied { model: String },
    /// The key's role doesn't allow this: inference keys use models, keys of other roles administer.
    #[error("a key with the role {} can't be used for this", .role.name())]
    RoleDenied { role: KeyRole },
    #[error("the account is suspended")]
    AccountSuspended,
    #[error("every engine behind {model} is down")]
    ModelNotAvailable { model: String },
    /// The engine ended the answer because the caller read it too slowly.
    #[error("the answer of {model} was read too slowly")]
    SlowReader { model: String },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The caller's limit of output tokens is higher than the model's.
    #[error("an output of {asked} tokens is over the cap of {cap}")]
    OutputOverCap { asked: u32, cap: u32 },
    /// The cost of the request's tokens is more than an amount can be.
    #[error("the cost is too large to be counted")]
    CostTooLarge,
    #[error("prompt of {prompt} tokens is too long for a context of {context}")]
    TooLong {
        context: u32,
        prompt: PromptSize,
        requested: Option<u32>,
    },
    #[error("model {model} does not support {feature}")]
    Unsupported {
        model: String,
        feature: &'static str,
    },
    /// `affordable`: the number of output tokens that the balance would cover.
    #[error("the balance is too low")]
    BalanceTooLow { affordable: u64 },
    /// The balance would be enough, but other open requests hold it.
    #[error("open requests hold the balance")]
    BalanceInFlight { retry_after: Duration },
    /// A spend cap of the key is reached. `retry_after` is set if open requests of the key hold the rest of the cap.
    #[error("the key's spend cap is reached")]
    KeyCap {
        period: CapPeriod,
        /// Number of output tokens that the cap would still cover.
        affordable: u64,
        retry_after: Option<Duration>,
    },
    /// The account asks for its bills too often.
    #[error("too many bills")]
    BillsTooFast { retry_after: Duration },
    #[error("too many requests")]
    RequestLimit { retry_after: Duration },
    /// The account's schemas and grammars have taken as much work as they may.
    #[error("too much work for schemas and grammars")]
    GrammarWorkLimit { retry_after: Duration },
    #[error("too many concurrent requests")]
    ConcurrencyLimit { limit: u32, retry_after: Duration },
    #[error("too many tokens")]
    TokenLimit { retry_after: Duration },
    /// A queue of the engine is full.
    #[error("the engine's queue is full")]
    QueueFull { retry_after: Duration },
    /// The process is ending: it finishes what runs, and starts nothing.
    #[error("the process is draining")]
    Draining { retry_after: Duration },
    /// The store of the rate limits can't be reached, and the configuration says to refuse requests then.
    #[error("the store of the rate limits is out of reach")]
    LimitsUnavailable { retry_after: Duration },
    /// More holds wait for the database than it can write.
    #[error("the ledger's queue is full")]
    LedgerQueueFull { retry_after: Duration },
    /// The database can't be read or written.
    #[error("the database is out of reach")]
    StoreUnavailable { retry_after: Duration },
    /// A fault of the server; the text is for the log.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Refusal {
    /// Turns an engine's error into a refusal, also when the engine fails after it has accepted the request.
    pub fn from_engine(error: EngineError, model: &str) -> Self {
        let model = || model.to_owned();
        match error {
            EngineError::Busy { retry_after } => Refusal::QueueFull { retry_after },
            EngineError::Draining { retry_after } => Refusal::Draining { retry_after },
            EngineError::TooMuchGrammarWork { retry_after } => {
                Refusal::GrammarWorkLimit { retry_after }
            }
            EngineError::Invalid(invalid) => Refusal::Invalid(invalid),
            EngineError::TooLong {
                context,
                prompt,
                requested,
            } => Refusal::TooLong {
                context,
                prompt,
                requested,
            },
            EngineError::Unsupported { feature } => Refusal::Unsupported {
                model: model(),
                feature,
            },
            EngineError::SlowReader => Refusal::SlowReader { model: model() },
            EngineError::Unavailable(_) => Refusal::ModelNotAvailable { model: model() },
            EngineError::Fault(cause) => Refusal::Internal(cause),
        }
    }

    /// How long the caller should wait before it tries again, if that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match *self {
            Refusal::BalanceInFlight { retry_after }
            | Refusal::BillsTooFast { retry_after }
            | Refusal::RequestLimit { retry_after }
            | Refusal::GrammarWorkLimit { retry_after }
            | Refusal::ConcurrencyLimit { retry_after, .. }
            | Refusal::TokenLimit { retry_after }
            | Refusal::QueueFull { retry_after }
            | Refusal::Draining { retry_after }
            | Refusal::LimitsUnavailable { retry_after }
            | Refusal::LedgerQueueFull { retry_after }
            | Refusal::StoreUnavailable { retry_after } => Some(retry_after),
            Refusal::KeyCap { retry_after, .. } => retry_after,
            Refusal::InvalidApiKey
            | Refusal::ModelNotFound { .. }
            | Refusal::ModelAccessDenied { .. }
            | Refusal::RoleDenied { .. }
            | Refusal::AccountSuspended
            | Refusal::ModelNotAvailable { .. }
            | Refusal::SlowReader { .. }
            | Refusal::Invalid(_)
            | Refusal::OutputOverCap { .. }
            | Refusal::CostTooLarge
            | Refusal::TooLong { .. }
            | Refusal::Unsupported { .. }
            | Refusal::BalanceTooLow { .. }
            | Refusal::Internal(_) => None,
        }
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(not_admitted: NotAdmitted) -> Self {
        let NotAdmitted::Denied(Denied {
            which,
            limit,
            retry_after,
        }) = not_admitted
        else {
            return Refusal::LimitsUnavailable {
                retry_after: STORE_RETRY,
            };
        };
        match which {
            Which::Requests => Refusal::RequestLimit { retry_after },
            Which::Tokens => Refusal::TokenLimit { retry_after },
            Which::Concurrent => Refusal::ConcurrencyLimit {
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
                retry_after,
            },
        }
    }
}

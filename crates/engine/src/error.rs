//! Why an engine refuses or fails, without HTTP: whose fault it is, and whether it may be retried.

use std::fmt;
use std::time::Duration;

use crate::request::Invalid;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The queue is full or the engine is draining; admitted again after about this time.
    #[error("the engine is busy; try again in {retry_after:?}")]
    Busy { retry_after: Duration },
    /// The account has had as much prepared for it as it may; admitted again after about this time.
    #[error("too much is asked for by one account; try again in {retry_after:?}")]
    TooMany { retry_after: Duration },
    /// A value that only the model can judge: a token id, a conversation that its template refuses.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// `requested` is the part of an explicit limit that doesn't fit beside the prompt.
    #[error("prompt of {prompt} tokens is too long for a context of {context}")]
    TooLong {
        context: u32,
        prompt: PromptSize,
        requested: Option<u32>,
    },
    /// As Novita names features: `chat`, `function-calling`, …
    #[error("the model does not support {feature}")]
    Unsupported { feature: &'static str },
    /// The engine can't be reached or has no model.
    #[error("the engine is not available: {0}")]
    Unavailable(String),
    /// A bug or a broken model; the text is for the log.
    #[error("the engine failed: {0}")]
    Fault(String),
}

/// How many tokens a prompt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    pub tokens: u64,
    /// Whether it has these; else it has at least as many, and was too long to be counted to its end.
    pub exact: bool,
}

impl From<u64> for PromptSize {
    fn from(tokens: u64) -> Self {
        PromptSize {
            tokens,
            exact: true,
        }
    }
}

impl fmt::Display for PromptSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PromptSize { tokens, exact } = self;
        write!(f, "{}{tokens}", if *exact { "" } else { "at least " })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Caller,
    Load,
    Engine,
}

impl EngineError {
    pub fn whose(&self) -> Whose {
        match self {
            EngineError::Invalid(_)
            | EngineError::TooLong { .. }
            | EngineError::Unsupported { .. }
            | EngineError::TooMany { .. } => Whose::Caller,
            EngineError::Busy { .. } => Whose::Load,
            EngineError::Unavailable(_) | EngineError::Fault(_) => Whose::Engine,
        }
    }
}

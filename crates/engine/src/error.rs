//! Why an engine refuses or fails, without HTTP: whose fault it is, and whether it may be retried.

use std::fmt;
use std::time::Duration;

use crate::request::Invalid;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The queue is full. A retry may succeed after about this time.
    #[error("the engine is busy; try again in {retry_after:?}")]
    Busy { retry_after: Duration },
    /// The engine is draining: it finishes what it has accepted, and accepts nothing more.
    #[error("the engine is draining; try again in {retry_after:?}")]
    Draining { retry_after: Duration },
    /// The account's schemas and grammars have taken as much work as they may. A retry may succeed after about this time.
    #[error(
        "the schemas and grammars of one account take too much work; try again in {retry_after:?}"
    )]
    TooMuchGrammarWork { retry_after: Duration },
    /// A value that only the model can check: a token id, a conversation that its template refuses.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The prompt doesn't fit the context, or leaves too little for the answer. `requested` is the answer's token limit
    /// if the request states one that may not be lowered.
    #[error("prompt of {prompt} tokens is too long for a context of {context}")]
    TooLong {
        context: u32,
        prompt: PromptSize,
        requested: Option<u32>,
    },
    /// `feature` is named as in Novita's API: `chat`, `function-calling`, …
    #[error("the model does not support {feature}")]
    Unsupported { feature: &'static str },
    /// The events of the generation were read too slowly.
    #[error("the reader was too slow")]
    SlowReader,
    /// The engine can't be reached, has stopped or has lost its model. The text is for the log.
    #[error("the engine is not available: {0}")]
    Unavailable(String),
    /// A bug or a broken model; the text is for the log.
    #[error("the engine failed: {0}")]
    Fault(String),
}

/// The number of tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    pub tokens: u64,
    /// Whether `tokens` is exact. If not, it is a lower bound: counting a far too long prompt stops early.
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
            | EngineError::TooMuchGrammarWork { .. }
            | EngineError::SlowReader => Whose::Caller,
            EngineError::Busy { .. } | EngineError::Draining { .. } => Whose::Load,
            EngineError::Unavailable(_) | EngineError::Fault(_) => Whose::Engine,
        }
    }
}

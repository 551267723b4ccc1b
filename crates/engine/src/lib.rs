//! The contract of an engine: the [`Engine`] trait with its requests and events.
//!
//! An engine turns a [`Request`] into [`Events`]: with a model in this process, or by calling another server. This
//! crate knows no HTTP, no SQL and no model, and nothing in it needs token ids: an engine without a tokenizer counts an
//! upper bound of the prompt's tokens.

pub mod embed;
pub mod error;
pub mod event;
pub mod prepared;
pub mod request;
pub mod tokenizer;

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::embed::{Embedding, Embeddings};
pub use crate::error::{EngineError, PromptSize};
pub use crate::event::{Allowance, Channel, Event, Events, FinishReason, TokenLogprob, Usage};
pub use crate::prepared::{Job, Prepared, Relaxed, Terms};
pub use crate::request::{Input, Request, Sampling};
pub use crate::tokenizer::Tokenizer;

/// A token id: an index into a model's vocabulary.
pub type Token = u32;

/// An engine turns a request into events.
///
/// `prepare` finds out how large the request is, which limits and the hold need, and returns it with a [`Job`] of the
/// engine's own. [`Prepared::start`] resolves once the request is accepted or refused, so that a refusal can still be an
/// HTTP status. Dropping or closing [`Events`] cancels the generation; there is no other way to cancel.
pub trait Engine: Send + Sync + Debug {
    fn facts(&self) -> &Facts;

    fn health(&self) -> Health;

    /// Fails if any request of the account would be refused now, because the engine's queue is full, for example. The
    /// check comes before a request is prepared or its cost held, so that refusing a flood of requests is cheap. `Ok`
    /// promises nothing: [`Prepared::start`] decides.
    fn accepts(&self, _account: &str) -> Result<(), EngineError> {
        Ok(())
    }

    /// Prepares one attempt at a request. The caller keeps the request, and may prepare it on another engine if this
    /// attempt fails.
    fn prepare<'a>(
        &'a self,
        request: &'a Arc<Request>,
    ) -> BoxFuture<'a, Result<Prepared, EngineError>>;

    /// Refuses every new request from now on with [`EngineError::Draining`]; accepted ones finish.
    fn drain(&self);

    /// Stops the engine: what is still being generated fails with [`EngineError::Unavailable`]. Resolves when the
    /// engine has let go of its threads or connections.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// The engine's embeddings; `None` if it has none.
    fn embeddings(&self) -> Option<&dyn Embeddings> {
        None
    }

    /// The model's tokenizer; `None` if it isn't in this process.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        None
    }
}

/// An engine's abilities and limits that the model catalogue shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The context length: the most tokens that a prompt and its answer have together.
    pub context_tokens: u32,
    /// Whether the engine takes chat conversations, not only plain prompts.
    pub chat: bool,
    /// Whether the engine generates text; a pure embedding model doesn't.
    pub generates: bool,
    /// The embeddings that the engine computes, if any.
    pub embedding: Option<Embedding>,
    pub features: Vec<Feature>,
    /// The API's `system_fingerprint`: a digest of weights, kernels, version and the settings that change numbers. A
    /// different fingerprint means that the same request may get a different answer.
    pub fingerprint: Arc<str>,
}

/// An ability that only some models have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    FunctionCalling,
    StructuredOutputs,
    Reasoning,
}

impl Feature {
    /// The feature's name in Novita's API.
    pub fn name(self) -> &'static str {
        match self {
            Feature::FunctionCalling => "function-calling",
            Feature::StructuredOutputs => "structured-outputs",
            Feature::Reasoning => "reasoning",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// The reason is for the log; callers only learn that the model is not available.
    Down(String),
}

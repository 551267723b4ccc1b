//! The engine: the [`Engine`] trait with its requests and events, and continuous batching in this process.
//!
//! An engine turns a [`Request`] into [`Events`]. [`LocalEngine`](local::LocalEngine) does it with a
//! [`Model`](model::Model) in this process; other engines may call a remote server. This crate knows no HTTP, no SQL
//! and no C++: a model's kernels stand behind a trait, and `sim` has a simulated model that needs no file.

pub mod constraint;
pub mod dialect;
pub mod embed;
pub mod error;
pub mod event;
pub mod local;
pub mod model;
pub mod request;
pub mod sampler;
pub mod scheduler;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod specials;
pub mod text;

use std::fmt::Debug;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::embed::{EmbedRequest, Embedded, Embedding, PreparedEmbed};
pub use crate::error::{EngineError, PromptSize};
pub use crate::event::{Allowance, Channel, Event, Events, FinishReason, TokenLogprob, Usage};
use crate::model::Tokenizer;
pub use crate::request::{Input, Prepared, Request, Sampling};

/// A token id: an index into a model's vocabulary.
pub type Token = u32;

/// A closure to run on another thread.
pub type Work = Box<dyn FnOnce() + Send>;

/// An engine turns a request into events.
///
/// `prepare` renders and tokenizes: it knows the prompt's size in tokens (exact for a local engine, an upper bound for
/// a remote one), which limits and the hold need. `generate` resolves once the request is accepted or refused, so a
/// refusal can still be an HTTP status. Dropping or closing [`Events`] cancels the generation; there is no other way to
/// cancel.
pub trait Engine: Send + Sync + Debug {
    fn facts(&self) -> &Facts;
    fn prepare(&self, request: Request) -> BoxFuture<'_, Result<Prepared, EngineError>>;
    fn generate(&self, prepared: Prepared) -> BoxFuture<'_, Result<Events, EngineError>>;
    /// Tokenizes and checks an embeddings request. An engine without embeddings refuses it.
    fn prepare_embed(
        &self,
        _request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>> {
        async { Err(NO_EMBEDDINGS) }.boxed()
    }
    /// Computes one vector for each input. Dropping the future cancels the inputs that aren't being computed yet.
    fn embed(&self, _prepared: PreparedEmbed) -> BoxFuture<'_, Result<Embedded, EngineError>> {
        async { Err(NO_EMBEDDINGS) }.boxed()
    }
    /// Fails if `generate` would refuse any request of the account now, because its queue is full, for example. The
    /// check comes before a request is prepared or its cost held, so that refusing a flood of requests is cheap. `Ok`
    /// promises nothing: `generate` decides.
    fn accepts(&self, _account: &str) -> Result<(), EngineError> {
        Ok(())
    }
    /// Runs slow work on texts, such as tokenizing, off the async threads. [`LocalEngine`](local::LocalEngine) runs it
    /// when it is the account's turn, and drops work that hasn't begun when the future is dropped.
    fn work(&self, _account: &Arc<str>, work: Work) -> BoxFuture<'_, Result<(), EngineError>> {
        async {
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|panic| EngineError::Fault(format!("work with a text: {panic}")))
        }
        .boxed()
    }
    fn health(&self) -> Health;
    /// The model's tokenizer; `None` if it isn't in this process.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>>;
}

const NO_EMBEDDINGS: EngineError = EngineError::Unsupported {
    feature: "embeddings",
};

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

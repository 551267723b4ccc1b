//! What an engine is, and how to batch.
//!
//! An engine turns a [`Request`] into [`Events`]. [`LocalEngine`](local::LocalEngine) does it with a
//! [`Model`](model::Model) in this process; others may do it elsewhere. This crate knows no HTTP, no
//! SQL and no C++: a model's kernels stand behind a trait, and `sim` has one that needs no file.

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

/// A token's number in a model's vocabulary.
pub type Token = u32;

/// Something to be done on another thread.
pub type Work = Box<dyn FnOnce() + Send>;

/// An engine turns a request into events.
///
/// `prepare` renders and tokenizes: it knows the prompt's size in tokens (exact for a local engine,
/// an upper bound for a remote one), which limits and the hold need. `generate` resolves once the
/// request is accepted or refused, so a refusal can still be an HTTP status.
/// Dropping [`Events`] cancels the generation; there is no other way to cancel.
pub trait Engine: Send + Sync + Debug {
    fn facts(&self) -> &Facts;
    fn prepare(&self, request: Request) -> BoxFuture<'_, Result<Prepared, EngineError>>;
    fn generate(&self, prepared: Prepared) -> BoxFuture<'_, Result<Events, EngineError>>;
    /// As [`prepare`](Self::prepare), for embeddings: an engine without them refuses.
    fn prepare_embed(
        &self,
        _request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>> {
        async { Err(NO_EMBEDDINGS) }.boxed()
    }
    /// Computes one vector for each input. Dropping the future cancels what hasn't begun.
    fn embed(&self, _prepared: PreparedEmbed) -> BoxFuture<'_, Result<Embedded, EngineError>> {
        async { Err(NO_EMBEDDINGS) }.boxed()
    }
    /// Refuses what `generate` would refuse the account now, whatever it is. It is asked before anything is prepared or held for a
    /// request, so that a crowd costs next to nothing; whether one is accepted, `generate` says.
    fn accepts(&self, _account: &str) -> Result<(), EngineError> {
        Ok(())
    }
    /// Does work with the model's texts, which takes a while, in the account's turn. Dropping the future drops what hasn't begun.
    fn work(&self, _account: &Arc<str>, work: Work) -> BoxFuture<'_, Result<(), EngineError>> {
        async {
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|panic| EngineError::Fault(format!("work with a text: {panic}")))
        }
        .boxed()
    }
    fn health(&self) -> Health;
    /// The model's tokenizer, if it is here.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>>;
}

const NO_EMBEDDINGS: EngineError = EngineError::Unsupported {
    feature: "embeddings",
};

/// What an engine can do, as far as a catalogue needs to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The longest prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// Whether it takes conversations, not only plain prompts.
    pub chat: bool,
    /// Whether it generates text; a model that is made for embeddings doesn't.
    pub generates: bool,
    /// Whether it gives embeddings, and which.
    pub embedding: Option<Embedding>,
    pub features: Vec<Feature>,
    /// Another one where answers to the same request may be others: a digest of weights, kernels, version, and the settings
    /// that change numbers.
    pub fingerprint: Arc<str>,
}

/// What not every model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    FunctionCalling,
    StructuredOutputs,
    Reasoning,
}

impl Feature {
    /// As Novita names it.
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
    /// For the log; callers only learn that the model is not available.
    Down(String),
}

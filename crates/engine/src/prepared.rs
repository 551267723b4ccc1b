//! A request that an engine has prepared: its size, and the engine's own job.

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{Allowance, EngineError, Events, Token};

/// A request prepared for one attempt on one engine. Limits and the hold work with its sizes; only its engine knows the job.
#[derive(Debug)]
pub struct Prepared {
    /// The tokens of all prompts: exact if the engine has a tokenizer, otherwise an upper bound.
    pub prompt_tokens: u64,
    /// The most tokens that can be generated, over all choices.
    pub output_tokens_max: u64,
    /// The tokens of each prompt; `None` if the engine has no tokenizer.
    pub prompts: Option<Vec<Arc<[Token]>>>,
    /// The parts of the request's JSON Schemas that aren't enforced.
    pub relaxed: Arc<[Relaxed]>,
    pub job: Box<dyn Job>,
}

impl Prepared {
    /// The most tokens that prompts and answers have together.
    pub fn tokens_max(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.output_tokens_max)
    }

    /// Starts the generation; resolves once the engine has accepted or refused it.
    pub fn start(self, terms: Terms) -> BoxFuture<'static, Result<Events, EngineError>> {
        self.job.start(terms)
    }
}

/// The engine's side of a [`Prepared`] request.
pub trait Job: Send + Sync + Debug + 'static {
    /// Starts the generation; resolves once the engine has accepted or refused it.
    fn start(self: Box<Self>, terms: Terms) -> BoxFuture<'static, Result<Events, EngineError>>;
}

/// The payer's (the gateway's) decisions after a request was prepared.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How many tokens may be generated now, over all choices. The payer raises it while the generation runs.
    pub allowance: Allowance,
    /// The account's weight in fair scheduling: an account with twice the weight gets twice the share.
    pub weight: NonZeroU32,
}

impl Default for Terms {
    /// No limit, and the lowest weight.
    fn default() -> Self {
        Terms {
            allowance: Allowance::unlimited(),
            weight: NonZeroU32::MIN,
        }
    }
}

/// A place in a JSON Schema that isn't enforced, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxed {
    /// A JSON pointer (RFC 6901) into the request.
    pub pointer: String,
    /// A message for callers.
    pub reason: String,
}

//! Embeddings: the request to an engine, and its answer.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::EngineError;
use crate::request::{Invalid, Prompt};

/// The most inputs of one request; OpenAI's limit.
pub const INPUTS_MAX: usize = 2_048;
/// The most tokens of all inputs of one request; OpenAI's limit.
pub const TOKENS_MAX: u64 = 300_000;

/// The embeddings that a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// The number of dimensions of a vector.
    pub dimensions: u32,
    /// The longest input, in tokens.
    pub input_tokens_max: u32,
    pub shortening: Shortening,
}

/// Whether the first numbers of a vector alone are an embedding too (the API's `dimensions`). That depends on how the
/// model was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortening {
    /// Any number of dimensions: the model was trained for it (Matryoshka).
    Any,
    Never,
}

/// A request for one vector of each input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    pub inputs: Vec<Prompt>,
    /// The number of dimensions of each vector; `None` is as many as the model gives.
    pub dimensions: Option<u32>,
    /// The account that sends the request.
    pub account: Arc<str>,
}

/// The embeddings of an engine.
pub trait Embeddings: Send + Sync + Debug {
    /// Checks one attempt at a request, and finds out how many tokens it has.
    fn prepare_embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>>;
}

/// A request prepared for one attempt on one engine. Limits and the hold work with its size; only its engine knows the job.
#[derive(Debug)]
pub struct PreparedEmbed {
    /// The tokens that are billed if the request succeeds.
    pub tokens: u64,
    pub job: Box<dyn EmbedJob>,
}

impl PreparedEmbed {
    /// Computes one vector for each input. Dropping the future cancels the inputs that aren't being computed yet.
    pub fn run(self) -> BoxFuture<'static, Result<Embedded, EngineError>> {
        self.job.run()
    }
}

/// The engine's side of a [`PreparedEmbed`] request.
pub trait EmbedJob: Send + Debug + 'static {
    /// Computes one vector for each input. Dropping the future cancels the inputs that aren't being computed yet.
    fn run(self: Box<Self>) -> BoxFuture<'static, Result<Embedded, EngineError>>;
}

/// The answer: vectors in the order of the inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Each is normalized to length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub tokens: u64,
}

impl Embedding {
    /// The number of dimensions to return. Fails if the caller asks for more than the model has, for none, or for fewer
    /// from a model that wasn't trained for that.
    pub fn dimensions(&self, asked: Option<u32>) -> Result<u32, Invalid> {
        match asked {
            None => Ok(self.dimensions),
            Some(asked) if asked == self.dimensions => Ok(asked),
            Some(_) if self.shortening == Shortening::Never => Err(Invalid::new(
                "dimensions",
                format!(
                    "this model does not support other dimensions than {}",
                    self.dimensions
                ),
            )),
            Some(asked @ 1..) if asked < self.dimensions => Ok(asked),
            Some(asked) => Err(Invalid::new(
                "dimensions",
                format!(
                    "dimensions must be between 1 and {}, got {asked}",
                    self.dimensions
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_shortened_only_for_models_that_were_trained_for_it() {
        let check = |shortening, asked, expected: Result<u32, &str>| {
            let embedding = Embedding {
                dimensions: 768,
                input_tokens_max: 512,
                shortening,
            };
            let got = embedding.dimensions(asked);
            let got = got.map_err(|invalid| (invalid.param, invalid.message));
            let expected =
                expected.map_err(|message| ("dimensions".to_owned(), message.to_owned()));
            assert_eq!(got, expected, "{shortening:?} {asked:?}");
        };
        let fixed = Err("this model does not support other dimensions than 768");
        check(Shortening::Never, None, Ok(768));
        check(Shortening::Never, Some(768), Ok(768));
        check(Shortening::Never, Some(64), fixed);
        check(Shortening::Never, Some(0), fixed);
        check(Shortening::Never, Some(769), fixed);
        check(Shortening::Any, None, Ok(768));
        check(Shortening::Any, Some(768), Ok(768));
        check(Shortening::Any, Some(1), Ok(1));
        check(
            Shortening::Any,
            Some(0),
            Err("dimensions must be between 1 and 768, got 0"),
        );
        check(
            Shortening::Any,
            Some(769),
            Err("dimensions must be between 1 and 768, got 769"),
        );
    }
}

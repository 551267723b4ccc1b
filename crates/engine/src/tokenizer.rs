//! The tokenizer that an engine may offer to callers: text to tokens, and back.

use std::fmt::Debug;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::request::Tokenizing;
use crate::{EngineError, Token};

/// A closure to run on another thread.
pub type Work = Box<dyn FnOnce() + Send>;

/// A model's tokenizer. Tokenizing a long text takes milliseconds: run it by [`run`](Tokenizer::run).
pub trait Tokenizer: Send + Sync + Debug {
    /// The number of tokens: ids are below it.
    fn vocabulary(&self) -> u32;

    fn encode(&self, text: &str, tokenizing: Tokenizing) -> Encoded;

    /// Appends the token's bytes to `bytes`; special tokens have none. A token may end inside a UTF-8 character.
    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>);

    /// Runs slow work on texts, such as tokenizing, off the async threads. An engine that runs the work of several
    /// accounts in turns does so here, and drops work that hasn't begun when the future is dropped.
    fn run(&self, _account: &Arc<str>, work: Work) -> BoxFuture<'_, Result<(), EngineError>> {
        async {
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|panic| EngineError::Fault(format!("work with a text: {panic}")))
        }
        .boxed()
    }
}

/// Whether the model's BOS token is put in front of a text, if the model wants one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    Add,
    Omit,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<Token>,
    /// Whether `tokens` covers the whole text. Tokenizing a text far longer than the context stops early, since it
    /// would take too long.
    pub complete: bool,
}

//! The model's tokenizer, as the engine offers it to callers.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use weir_engine::request::Tokenizing;
use weir_engine::tokenizer::{Encoded, Work};
use weir_engine::{EngineError, Token};

use crate::local::workers::Workers;
use crate::model::Tokenizer;

/// Runs its work when it is the account's turn.
#[derive(Debug)]
pub(crate) struct TextTokenizer {
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
    pub(crate) workers: Arc<Workers>,
}

impl weir_engine::Tokenizer for TextTokenizer {
    fn vocabulary(&self) -> u32 {
        self.tokenizer.vocabulary()
    }

    fn encode(&self, text: &str, tokenizing: Tokenizing) -> Encoded {
        self.tokenizer
            .encode(text, tokenizing.into(), tokenizing.bos)
    }

    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>) {
        self.tokenizer.token_bytes(token, bytes);
    }

    fn run(&self, account: &Arc<str>, work: Work) -> BoxFuture<'_, Result<(), EngineError>> {
        let account = Arc::clone(account);
        async move { self.workers.run(&account, work).await }.boxed()
    }
}

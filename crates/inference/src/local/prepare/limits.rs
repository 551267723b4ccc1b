//! A request's token limits in the model's token ids.

use std::sync::Arc;

use weir_engine::Token;
use weir_engine::request::Request;

use crate::local::token_limits;
use crate::model::{Bos, Tokenizer};
use crate::prepared::TokenLimits;
use crate::specials::Names;

/// The limits that the request's filter and its `min_tokens` mean. `ends` are all EOS tokens.
pub(super) fn token_limits(
    request: &Request,
    tokenizer: &dyn Tokenizer,
    ends: impl FnOnce() -> Arc<[Token]>,
) -> TokenLimits {
    let words = request.filter.bad_words().iter();
    let bad_words = words.flat_map(|word| bad_word(word, tokenizer));
    let stop = &request.stop;
    TokenLimits {
        allowed: request
            .filter
            .allowed()
            .map(|tokens| token_limits::mask(tokens).into()),
        bad_words: bad_words.collect(),
        ends: match stop.min_tokens {
            0 => Arc::default(),
            _ if stop.tokens().is_empty() => ends(),
            _ => [&ends()[..], stop.tokens()].concat().into(),
        },
    }
}

/// The tokens of a word at the beginning of a text, and after a space where those differ.
fn bad_word(word: &str, tokenizer: &dyn Tokenizer) -> Vec<Box<[Token]>> {
    let word = word.trim_start_matches(' ');
    let tokens = |text: &str| tokenizer.encode(text, Names::Words, Bos::Omit).tokens;
    let mut all = vec![tokens(word), tokens(&format!(" {word}"))];
    all.dedup();
    let all = all.into_iter().filter(|tokens| !tokens.is_empty());
    all.map(Vec::into_boxed_slice).collect()
}

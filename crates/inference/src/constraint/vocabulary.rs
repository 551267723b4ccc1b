//! A model's vocabulary as llguidance wants it: a trie of all tokens by their bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use weir_engine::Token;

use crate::model::Tokenizer;

/// Bytes of the longest token in the trie. A few vocabularies have tokens of about a thousand blanks.
const TOKEN_BYTES_MAX: usize = 1_000;

/// Makes the factory of all parsers, and the set of tokens that end a text.
pub(super) fn factory(tokenizer: &dyn Tokenizer) -> Result<(ParserFactory, SimpleVob), String> {
    let words: Vec<Vec<u8>> = (0..tokenizer.vocabulary())
        .map(|token| word(tokenizer, token))
        .collect();
    let ends: Vec<Token> = (0..tokenizer.vocabulary())
        .filter(|&token| tokenizer.is_end(token))
        .collect();
    let Some(&end) = ends.first() else {
        return Err("no token ends a text".to_owned());
    };
    let trie = TokTrie::from(&TokRxInfo::new(tokenizer.vocabulary(), end), &words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&ends)));
    let slices = SlicedBiasComputer::general_slices();
    let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        .map_err(|error| error.to_string())?;
    let ends = env.tok_trie().eos_token_set();
    Ok((factory, ends))
}

/// The bytes of a token. They are empty for a token that stands for no text: a grammar can allow it by its id only.
fn word(tokenizer: &dyn Tokenizer, token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !tokenizer.is_end(token) {
        tokenizer.token_bytes(token, &mut bytes);
    }
    // In the trie this byte marks a special token; in UTF-8 it never occurs.
    if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) || bytes.len() > TOKEN_BYTES_MAX {
        bytes.clear();
    }
    bytes
}

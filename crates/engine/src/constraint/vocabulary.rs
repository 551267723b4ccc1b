//! A model's vocabulary as llguidance wants it: a tree of all tokens by their bytes.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};

use crate::Token;
use crate::model::Tokenizer;

/// Longest token that the tree takes; a few vocabularies have a thousand blanks.
const TOKEN_BYTES_MAX: usize = 1_000;

/// The factory of all parsers, and the set of tokens that end a text.
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

/// The bytes of a token, or none if no text has them: then only its number allows it.
fn word(tokenizer: &dyn Tokenizer, token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !tokenizer.is_end(token) {
        tokenizer.piece(token, &mut bytes);
    }
    // In the tree this byte begins the name of a special token; in UTF-8 it never occurs.
    if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) || bytes.len() > TOKEN_BYTES_MAX {
        bytes.clear();
    }
    bytes
}

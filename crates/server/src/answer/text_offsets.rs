//! Where the text of a plain completion's choices begins, for the offsets of its log-probabilities.

use std::sync::Arc;

use weir_engine::{Token, Tokenizer};

/// The offset at which the text of each prompt's choices begins, from the beginning of the prompt.
#[derive(Debug, Clone)]
pub(crate) enum TextOffsets {
    /// The text begins with the prompt, or the answer has no offsets.
    Zero,
    Characters(Vec<usize>),
    /// The text begins where the text of these tokens ends. Without a tokenizer in this process the offsets are 0.
    After(Vec<Vec<Token>>, Option<Arc<dyn Tokenizer>>),
}

impl TextOffsets {
    /// The offset of each prompt, in characters; a prompt without one begins at 0. The tokens must be in the vocabulary
    /// and few: an engine has accepted them.
    pub(super) fn resolve(self) -> Vec<usize> {
        match self {
            TextOffsets::Zero | TextOffsets::After(_, None) => Vec::new(),
            TextOffsets::Characters(characters) => characters,
            TextOffsets::After(prompts, Some(tokenizer)) => prompts
                .iter()
                .map(|tokens| detokenize_lossy(&*tokenizer, tokens).chars().count())
                .collect(),
        }
    }
}

/// The text of tokens. Bytes that aren't valid UTF-8 become replacement characters.
pub(crate) fn detokenize_lossy(tokenizer: &dyn Tokenizer, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        tokenizer.token_bytes(token, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

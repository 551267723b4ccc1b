//! Token options of a request: how prompts are tokenized and cut, and which tokens may be generated.

use std::sync::Arc;

use super::Invalid;
use crate::Token;
use crate::tokenizer::Bos;

/// The most entries of `bad_words`.
pub const BAD_WORDS_MAX: usize = 128;
/// The most characters of an entry of `bad_words`.
pub const BAD_WORD_CHARS_MAX: usize = 1_024;

/// How a text prompt is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenizing {
    /// `add_special_tokens`: whether the model's BOS token is put in front.
    pub bos: Bos,
    /// `parse_special`: whether the name of a control token in the text becomes that token.
    pub control_tokens: bool,
}

impl Default for Tokenizing {
    fn default() -> Self {
        Tokenizing {
            bos: Bos::Add,
            control_tokens: true,
        }
    }
}

/// How a prompt that is too long is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    pub to: PromptLimit,
    pub keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLimit {
    /// The number of tokens that fit the context beside the answer.
    Context,
    Tokens(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The last tokens, and in front of them the BOS token where it was added.
    Last,
    First,
}

/// Limits on the tokens that may be generated, whatever their probability: `allowed_token_ids` and `bad_words`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFilter {
    allowed: Option<Arc<[Token]>>,
    bad_words: Arc<[String]>,
}

impl TokenFilter {
    /// Fails if `allowed` (`allowed_token_ids`) is empty, if there are more than [`BAD_WORDS_MAX`] bad words, or if one
    /// of them is blank or longer than [`BAD_WORD_CHARS_MAX`] characters.
    pub fn new(allowed: Option<Vec<Token>>, bad_words: Vec<String>) -> Result<Self, Invalid> {
        if allowed.as_ref().is_some_and(Vec::is_empty) {
            let message = "allowed_token_ids must have at least one entry";
            return Err(Invalid::new("allowed_token_ids", message));
        }
        let refused = |message| Err(Invalid::new("bad_words", message));
        if bad_words.len() > BAD_WORDS_MAX {
            let got = bad_words.len();
            return refused(format!(
                "bad_words may have at most {BAD_WORDS_MAX} entries, got {got}"
            ));
        }
        let is_long = |word: &&String| word.chars().count() > BAD_WORD_CHARS_MAX;
        if bad_words.iter().find(is_long).is_some() {
            return refused(format!(
                "bad_words may have at most {BAD_WORD_CHARS_MAX} characters each"
            ));
        }
        if bad_words
            .iter()
            .any(|word| word.trim_start_matches(' ').is_empty())
        {
            return refused("bad_words must not be empty".to_owned());
        }
        Ok(TokenFilter {
            allowed: allowed.map(Into::into),
            bad_words: bad_words.into(),
        })
    }

    pub fn allowed(&self) -> Option<&[Token]> {
        self.allowed.as_deref()
    }

    pub fn bad_words(&self) -> &[String] {
        &self.bad_words
    }
}

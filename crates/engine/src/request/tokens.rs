//! What a request says of tokens: how prompts become them, and which may be generated.

use std::sync::Arc;

use super::Invalid;
use crate::Token;
use crate::model::Bos;
use crate::specials::Names;

/// Entries of `bad_words`.
pub const BAD_WORDS_MAX: usize = 128;
/// Characters of one of them.
pub const BAD_WORD_CHARS_MAX: usize = 1_024;

/// How a text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenizing {
    /// `add_special_tokens`
    pub bos: Bos,
    /// `parse_special`: whether names of control tokens in the text are these tokens.
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

impl Tokenizing {
    pub fn names(self) -> Names<'static> {
        match self.control_tokens {
            true => Names::All,
            false => Names::Words,
        }
    }
}

/// Which part of a prompt that is too long is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    pub to: PromptLimit,
    pub keep: Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLimit {
    /// As many tokens as fit the context beside the answer.
    Context,
    Tokens(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// And with them the model's own first token, where that was added.
    Last,
    First,
}

/// Tokens that may not be generated, whatever the model thinks of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFilter {
    allowed: Option<Arc<[Token]>>,
    bad_words: Arc<[String]>,
}

impl TokenFilter {
    /// `allowed_token_ids` are at least one; `bad_words` are [`BAD_WORDS_MAX`] at most, none empty.
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

/// Tokens that reasoning may have before it is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinkingLimit {
    pub tokens: u32,
    pub open: &'static str,
    pub close: &'static str,
    /// The tokens of `close`.
    pub closing: Arc<[Token]>,
    /// Whether the prompt has opened the reasoning.
    pub is_open: bool,
}

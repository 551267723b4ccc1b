//! Stop conditions of an answer, besides its token limit.

use std::sync::Arc;

use super::Invalid;
use crate::Token;

/// The most stop strings of one request.
pub const STOPS_MAX: usize = 4;
/// The most stop tokens of one request.
pub const STOP_TOKENS_MAX: usize = 128;

/// The strings and tokens that end an answer, and whether the model's EOS does.
///
/// Every choice has a clone, so clones share the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stop {
    strings: Arc<[String]>,
    tokens: Arc<[Token]>,
    /// `min_tokens`: nothing ends an answer before it has this many tokens. Until then EOS and stop tokens can't be
    /// generated, and stop strings aren't looked for.
    pub min_tokens: u32,
    /// `ignore_eos`: the model's EOS tokens are tokens like any other.
    pub ignores_model: bool,
    /// `include_stop_str_in_output`: the stop string or stop token stays in the text.
    pub is_shown: bool,
}

impl Stop {
    /// Fails if there are more than [`STOPS_MAX`] strings, or if one is empty.
    pub fn new(strings: Vec<String>) -> Result<Self, Invalid> {
        if strings.len() > STOPS_MAX {
            let got = strings.len();
            return Err(Invalid::new(
                "stop",
                format!("at most {STOPS_MAX} stop strings are allowed, got {got}"),
            ));
        }
        if strings.iter().any(String::is_empty) {
            return Err(Invalid::new("stop", "a stop string must not be empty"));
        }
        Ok(Stop {
            strings: strings.into(),
            ..Stop::default()
        })
    }

    /// Sets the stop tokens (`stop_token_ids`). Fails if there are more than [`STOP_TOKENS_MAX`].
    pub fn with_tokens(self, tokens: Vec<Token>) -> Result<Self, Invalid> {
        if tokens.len() > STOP_TOKENS_MAX {
            let got = tokens.len();
            return Err(Invalid::new(
                "stop_token_ids",
                format!("stop_token_ids may have at most {STOP_TOKENS_MAX} entries, got {got}"),
            ));
        }
        Ok(Stop {
            tokens: tokens.into(),
            ..self
        })
    }

    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }
}

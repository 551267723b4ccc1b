//! What ends a text, besides its limit.

use std::sync::Arc;

use super::Invalid;
use crate::Token;

/// Stop strings of one request.
pub const STOPS_MAX: usize = 4;
/// Stop tokens of one request.
pub const STOP_TOKENS_MAX: usize = 128;

/// Strings and tokens that end a text, and whether the model itself does.
///
/// Every choice has them, so copies are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stop {
    strings: Arc<[String]>,
    tokens: Arc<[Token]>,
    /// `min_tokens`: before as many are generated nothing ends a text; the tokens that would can't come.
    pub min_tokens: u32,
    /// `ignore_eos`: the tokens with which the model ends a text are as others.
    pub ignores_model: bool,
    /// `include_stop_str_in_output`: what ends a text is a part of it.
    pub is_shown: bool,
}

impl Stop {
    /// At most [`STOPS_MAX`] strings, none empty.
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

    /// The same with at most [`STOP_TOKENS_MAX`] tokens, `stop_token_ids`.
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

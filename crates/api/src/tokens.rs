//! Conversion of texts to tokens and back, in vLLM's format, and the cost estimate of a request.

use serde::Serialize;

use crate::chat::{MESSAGES_MAX, Message, TOOLS_MAX, Tool};
use crate::json::Kwargs;
use crate::value::{Anything, List, object};

object! {
    /// The body of `POST tokenize`: a `prompt`, or `messages`.
    pub struct Tokenize {
        model: String,
        prompt: String,
        add_special_tokens: bool,
        parse_special: bool,
        messages: List<Message, MESSAGES_MAX>,
        tools: List<Tool, TOOLS_MAX>,
        chat_template_kwargs: Kwargs,
        add_generation_prompt: bool,
        continue_final_message: bool,
        chat_template: Anything,
        return_token_strs: bool,
    }
}

/// `S` is the sequence of the tokens' texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tokenized<'a, S> {
    pub count: usize,
    /// The length of the model's context, in tokens.
    pub max_model_len: u32,
    pub tokens: &'a [u32],
    /// The text of each token, if asked for.
    pub token_strs: Option<S>,
}

object! {
    /// The body of `POST detokenize`.
    pub struct Detokenize {
        model: String,
        tokens: Vec<u32>,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detokenized {
    pub prompt: String,
}

object! {
    /// The fields that distinguish the two kinds of body of `POST count`.
    pub struct Count {
        model: String,
        messages: Anything,
        prompt: Anything,
    }
}

/// The tokens that a request would need, and its cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub object: &'static str,
    pub model: String,
    pub prompt_tokens: u64,
    /// The most tokens that can be generated, summed over all choices.
    pub max_completion_tokens: u64,
    pub max_total_tokens: u64,
    /// Unit: 0.000000001 USD.
    pub max_cost_nano_usd: i64,
    /// `max_cost_nano_usd` in USD: `0.000123`.
    pub max_cost_usd: String,
}

impl Counted {
    pub const OBJECT: &'static str = "count";
}

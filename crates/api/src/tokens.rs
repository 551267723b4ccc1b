//! Texts to tokens and back, as vLLM has it, and what a request would cost.

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

/// `S` are the texts of the tokens, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tokenized<'a, S> {
    pub count: usize,
    /// The model's context.
    pub max_model_len: u32,
    pub tokens: &'a [u32],
    /// What each token stands for, if asked for.
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
    /// What tells the two bodies of `POST count` apart.
    pub struct Count {
        model: String,
        messages: Anything,
        prompt: Anything,
    }
}

/// What a request would need and could cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub object: &'static str,
    pub model: String,
    pub prompt_tokens: u64,
    /// The most that can be generated, over all choices.
    pub max_completion_tokens: u64,
    pub max_total_tokens: u64,
    /// In 0.000000001 USD.
    pub max_cost_nano_usd: i64,
    /// The same in USD: `0.000123`.
    pub max_cost_usd: String,
}

impl Counted {
    pub const OBJECT: &'static str = "count";
}

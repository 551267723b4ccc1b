//! A request that is rendered and tokenized: the scheduler and the engine's thread work with it.

use std::num::NonZeroU32;
use std::sync::Arc;

use weir_engine::{Allowance, Relaxed, Request, Token};

use crate::chat_format::SharedParseRules;
use crate::constraint::Constraint;

/// A rendered and tokenized request, as the engine's thread takes it.
#[derive(Debug, Clone)]
pub struct PreparedRequest {
    pub request: Arc<Request>,
    /// The tokens of each prompt; none of them is empty.
    pub prompts: Vec<Arc<[Token]>>,
    /// The most tokens of each choice; they fit the context beside the longest prompt.
    pub output_max: u32,
    /// The grammar that each choice must follow, if any.
    pub constraint: Option<Constraint>,
    pub limits: TokenLimits,
    /// The limit of each choice's reasoning, if any.
    pub thinking: Option<ThinkingLimit>,
    /// The parts of the request's JSON Schemas that aren't enforced, as JSON pointers into the request.
    pub relaxed: Arc<[Relaxed]>,
    /// How many tokens may be generated now, over all choices. The payer (the gateway) raises it.
    pub allowance: Allowance,
    /// How the output parser reads the answers' text.
    pub parse_rules: SharedParseRules,
    /// The special tokens whose names appear in that text; other special tokens have no text.
    pub shown: ShownTokens,
    /// The account that pays. By default an account can't tell, from how fast its prompts are computed, what was
    /// computed for another one.
    pub account: Arc<str>,
    /// The account's weight in fair scheduling: an account with twice the weight gets twice the share.
    pub weight: NonZeroU32,
}

/// The special tokens that appear in the text by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownTokens {
    All,
    Some(Vec<(Token, &'static str)>),
}

impl Default for ShownTokens {
    fn default() -> Self {
        ShownTokens::Some(Vec::new())
    }
}

/// The tokens that may be generated, in the model's token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenLimits {
    /// A bitmask of the tokens that may be generated at all; `None` allows all.
    pub allowed: Option<Arc<[u32]>>,
    /// Token sequences that may not be generated: after all but its last token, the last one is banned.
    pub bad_words: Arc<[Box<[Token]>]>,
    /// Tokens that may not be generated among the first [`Stop::min_tokens`](weir_engine::request::Stop::min_tokens).
    pub ends: Arc<[Token]>,
}

impl PreparedRequest {
    /// A prepared request without output parser, constraint and token limits, and with an unlimited allowance.
    pub fn new(
        request: impl Into<Arc<Request>>,
        prompts: Vec<Arc<[Token]>>,
        output_max: u32,
    ) -> Self {
        let request = request.into();
        PreparedRequest {
            account: Arc::clone(&request.account),
            request,
            prompts,
            output_max,
            constraint: None,
            limits: TokenLimits::default(),
            thinking: None,
            relaxed: Arc::default(),
            allowance: Allowance::unlimited(),
            parse_rules: SharedParseRules::PLAIN,
            shown: ShownTokens::default(),
            weight: NonZeroU32::MIN,
        }
    }

    pub fn prompt_tokens(&self) -> u64 {
        self.prompts.iter().map(|prompt| prompt.len() as u64).sum()
    }

    /// The number of answers to this request: prompts × n.
    pub fn choices(&self) -> u64 {
        self.prompts.len() as u64 * u64::from(self.request.choices.get())
    }

    /// The most tokens that can be generated.
    pub fn output_tokens_max(&self) -> u64 {
        self.choices() * u64::from(self.output_max)
    }
}

/// The limit of an answer's reasoning, and the marks around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinkingLimit {
    pub tokens: u32,
    pub open: &'static str,
    pub close: &'static str,
    /// The tokens of `close`.
    pub closing: Arc<[Token]>,
    /// Whether the prompt itself opens the reasoning.
    pub is_open: bool,
}

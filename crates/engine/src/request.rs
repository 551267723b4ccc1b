//! Requests to an engine. Values are validated here, so that no code behind this module checks a range again.

mod conversation;
mod schema;
mod stop;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use crate::Token;
pub use crate::request::conversation::{
    Conversation, Ending, Message, Role, Tool, ToolCall, ToolChoice, Tools,
};
pub use crate::request::schema::{SCHEMA_PARAM, Schema};
pub use crate::request::stop::{STOP_TOKENS_MAX, STOPS_MAX, Stop};
pub use crate::request::tokens::{
    BAD_WORD_CHARS_MAX, BAD_WORDS_MAX, Keep, PromptLimit, TokenFilter, Tokenizing, Truncation,
};

/// The most choices of one prompt (`n`).
pub const CHOICES_MAX: u32 = 128;
/// The most entries of `logit_bias`.
pub const BIASES_MAX: usize = 1024;
/// The most alternatives with log-probabilities for each token.
pub const TOP_LOGPROBS_MAX: u8 = 20;

/// A request: one or more prompts, each answered by `choices` texts.
///
/// Choice `c` of prompt `p` has the index `p · choices + c` in [`Event`](crate::Event)s.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub input: Input,
    pub sampling: Sampling,
    pub stop: Stop,
    pub choices: Choices,
    pub output: OutputLimit,
    pub format: Format,
    /// The log-probabilities to return with generated tokens, if any.
    pub logprobs: Option<Logprobs>,
    /// Whether each answer begins with its prompt; with `logprobs` the prompt is scored too.
    pub echo: bool,
    /// How prompts that are texts are tokenized; for a conversation the chat template decides that.
    pub tokenizing: Tokenizing,
    /// How prompts that are too long are cut; `None` refuses them.
    pub truncation: Option<Truncation>,
    pub filter: TokenFilter,
    /// The log-probabilities of prompt tokens to send in [`Event::Prompt`](crate::Event::Prompt), if any.
    pub prompt_logprobs: Option<Logprobs>,
    /// Whether events contain the token ids of prompts and answers.
    pub token_ids: bool,
    /// Whether special tokens appear in the text by their names; otherwise they have no text.
    pub names_specials: bool,
    /// `thinking_token_budget`: the number of tokens after which the engine closes the reasoning.
    pub thinking_tokens: Option<u32>,
    /// The account that sends the request; preparing it uses up the account's share of the workers.
    pub account: Arc<str>,
    /// Whether the same request, sent again with nothing else being computed, gets the same answer although its prompt
    /// is cached by then. On engines that aren't reproducible, this takes one more step and turns speculative decoding
    /// off.
    pub repeatable: bool,
}

impl Request {
    /// A request with default values: one choice per prompt, up to the end of the context.
    pub fn new(input: Input) -> Self {
        Request {
            input,
            sampling: Sampling::default(),
            stop: Stop::default(),
            choices: Choices::ONE,
            output: OutputLimit {
                tokens: None,
                overflow: Overflow::Lower,
            },
            format: Format::Text,
            logprobs: None,
            echo: false,
            tokenizing: Tokenizing::default(),
            truncation: None,
            filter: TokenFilter::default(),
            prompt_logprobs: None,
            token_ids: false,
            names_specials: false,
            thinking_tokens: None,
            account: Arc::default(),
            repeatable: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Chat(Conversation),
    Prompts(Vec<Prompt>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<Token>),
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimit {
    /// The most tokens of each choice; `None` is up to the end of the context.
    pub tokens: Option<u32>,
    /// The reaction when prompt and `tokens` together exceed the context.
    pub overflow: Overflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Lower the limit (chat).
    Lower,
    /// Refuse the request (completions).
    Refuse,
}

/// The format that an answer must have: `response_format`, or `structured_outputs` and similar fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Format {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under this JSON Schema.
    JsonSchema(Schema),
    /// Text that this regular expression (in Rust's syntax) matches as a whole; with the API field it came from.
    Regex(Arc<str>, &'static str),
    /// Exactly one of these texts.
    Choice(Arc<[String]>),
    /// Text of this grammar (EBNF or Lark); with the API field it came from.
    Grammar(Arc<str>, &'static str),
}

/// `logprobs`: the log-probability of each token, and of this many most likely alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logprobs(u8);

impl Logprobs {
    /// The log-probabilities of the tokens themselves, without alternatives.
    pub const CHOSEN: Logprobs = Logprobs(0);

    /// Fails unless `top` is between 0 and [`TOP_LOGPROBS_MAX`].
    pub fn new(param: &str, top: i64) -> Result<Self, Invalid> {
        match u8::try_from(top) {
            Ok(top @ 0..=TOP_LOGPROBS_MAX) => Ok(Logprobs(top)),
            _ => Err(Invalid::new(
                param,
                format!("{param} must be between 0 and {TOP_LOGPROBS_MAX}, got {top}"),
            )),
        }
    }

    pub fn top(self) -> usize {
        usize::from(self.0)
    }
}

/// A field whose value is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// The field's name in the API, nested with dots.
    pub param: String,
    pub message: String,
}

impl Invalid {
    pub fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Invalid {
            param: param.into(),
            message: message.into(),
        }
    }
}

/// The number of choices per prompt, `n`: 1 to [`CHOICES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices(u32);

impl Choices {
    pub const ONE: Choices = Choices(1);

    pub fn new(n: i64) -> Result<Self, Invalid> {
        match u32::try_from(n) {
            Ok(n @ 1..=CHOICES_MAX) => Ok(Choices(n)),
            _ => Err(Invalid::new(
                "n",
                format!("n must be between 1 and {CHOICES_MAX}, got {n}"),
            )),
        }
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// Sampling parameters as the caller sent them, not checked yet; see [`Sampling::new`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingFields {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<i64>,
    pub min_p: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub logit_bias: Vec<(Token, f64)>,
    pub seed: Option<i64>,
}

/// How the next token is chosen. Every value is in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    temperature: f32,
    top_p: f32,
    top_k: u32,
    min_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    repetition_penalty: f32,
    logit_bias: Arc<[(Token, f32)]>,
    seed: Option<i64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Arc::from([]),
            seed: None,
        }
    }
}

impl Sampling {
    /// Checks every range that the API documents, and fills in the defaults.
    pub fn new(fields: SamplingFields) -> Result<Self, Invalid> {
        let d = Sampling::default();
        Ok(Sampling {
            temperature: within(
                "temperature",
                fields.temperature,
                d.temperature,
                Bound::From(0.0),
                2.0,
            )?,
            top_p: within("top_p", fields.top_p, d.top_p, Bound::Above(0.0), 1.0)?,
            top_k: top_k(fields.top_k)?,
            min_p: within("min_p", fields.min_p, d.min_p, Bound::From(0.0), 1.0)?,
            presence_penalty: within(
                "presence_penalty",
                fields.presence_penalty,
                0.0,
                Bound::From(-2.0),
                2.0,
            )?,
            frequency_penalty: within(
                "frequency_penalty",
                fields.frequency_penalty,
                0.0,
                Bound::From(-2.0),
                2.0,
            )?,
            repetition_penalty: within(
                "repetition_penalty",
                fields.repetition_penalty,
                1.0,
                Bound::Above(0.0),
                2.0,
            )?,
            logit_bias: logit_bias(fields.logit_bias)?,
            seed: fields.seed,
        })
    }

    /// 0 means greedy sampling.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    pub fn top_p(&self) -> f32 {
        self.top_p
    }

    /// 0 means all tokens.
    pub fn top_k(&self) -> u32 {
        self.top_k
    }

    pub fn min_p(&self) -> f32 {
        self.min_p
    }

    pub fn presence_penalty(&self) -> f32 {
        self.presence_penalty
    }

    pub fn frequency_penalty(&self) -> f32 {
        self.frequency_penalty
    }

    pub fn repetition_penalty(&self) -> f32 {
        self.repetition_penalty
    }

    /// Added to the logits before all else; −100 masks the token. Sorted by token, each at most once.
    pub fn logit_bias(&self) -> &[(Token, f32)] {
        &self.logit_bias
    }

    pub fn seed(&self) -> Option<i64> {
        self.seed
    }

    /// Sets the seed if the caller gave none.
    #[must_use]
    pub fn or_seed(mut self, seed: i64) -> Self {
        self.seed.get_or_insert(seed);
        self
    }
}

/// The lower end of a range.
#[derive(Debug, Clone, Copy)]
enum Bound {
    From(f64),
    Above(f64),
}

fn within(
    param: &str,
    value: Option<f64>,
    default: f32,
    low: Bound,
    high: f64,
) -> Result<f32, Invalid> {
    let Some(value) = value else {
        return Ok(default);
    };
    let (inside, range) = match low {
        Bound::From(low) => (value >= low, format!("[{low}, {high}]")),
        Bound::Above(low) => (value > low, format!("({low}, {high}]")),
    };
    if inside && value <= high {
        // A positive number too small for f32 must not become the excluded 0.
        let narrow = value as f32;
        let kept = matches!(low, Bound::Above(_)) && narrow <= 0.0;
        return Ok(if kept { f32::MIN_POSITIVE } else { narrow });
    }
    Err(Invalid::new(
        param,
        format!("{param} must be in {range}, got {value}"),
    ))
}

fn top_k(value: Option<i64>) -> Result<u32, Invalid> {
    match value {
        None | Some(-1 | 0) => Ok(0),
        // A larger k exceeds every vocabulary, and so means all tokens.
        Some(k @ 1..) => Ok(u32::try_from(k).unwrap_or(u32::MAX)),
        Some(k) => Err(Invalid::new(
            "top_k",
            format!("top_k must be -1 or 0 (all), or at least 1, got {k}"),
        )),
    }
}

fn logit_bias(mut pairs: Vec<(Token, f64)>) -> Result<Arc<[(Token, f32)]>, Invalid> {
    if pairs.len() > BIASES_MAX {
        let got = pairs.len();
        return Err(Invalid::new(
            "logit_bias",
            format!("logit_bias may have at most {BIASES_MAX} entries, got {got}"),
        ));
    }
    pairs.sort_by_key(|&(token, _)| token);
    if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let token = twice[0].0;
        return Err(Invalid::new(
            "logit_bias",
            format!("logit_bias names token {token} twice"),
        ));
    }
    pairs
        .into_iter()
        .map(|(token, bias)| {
            within("logit_bias", Some(bias), 0.0, Bound::From(-100.0), 100.0)
                .map(|bias| (token, bias))
        })
        .collect()
}

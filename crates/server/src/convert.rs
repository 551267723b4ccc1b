//! From the wire to a [`Request`]: everything that the contract says about a parameter is decided here,
//! and nobody behind it checks again.

mod chat;
mod completion;
mod embeddings;
mod extensions;
mod foreign;
mod format;
mod scores;
mod tokens;
mod tools;

use weir_api::{Anything, Integer, LogitBias, StreamOptions};
use weir_engine::model::Bos;
use weir_engine::request::{Choices, Invalid, Stop, Tokenizing};
use weir_engine::{Feature, Input, Request, Token};
use weir_gateway::Offer;

pub(crate) use self::chat::chat;
pub(crate) use self::completion::completion;
pub(crate) use self::embeddings::{Encoding, embeddings};
pub(crate) use self::tokens::{Text, tokenize};
use crate::answer::Spelling;
use crate::error::ApiError;

/// What is asked of a model, and how the answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: Reply,
    /// By which of its names the caller gave the limit of tokens.
    pub(crate) limit: &'static str,
    pub(crate) shown: Shown,
}

impl Asked {
    pub(crate) fn prompts(&self) -> u32 {
        match &self.request.input {
            Input::Chat(_) => 1,
            Input::Prompts(prompts) => u32::try_from(prompts.len()).expect("prompts are few"),
        }
    }
}

/// What of the generation is shown, as far as it is known before the model is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    /// So many of each prompt's choices, the best; all if not given.
    pub(crate) best: Option<u32>,
    pub(crate) logprobs: Option<Spelling>,
    pub(crate) starts: Starts,
    /// Whether reasoning is left out.
    pub(crate) hides_reasoning: bool,
}

/// Where the text of each prompt's choices begins, from the begin of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Starts {
    /// With the prompt, or nobody wants to know.
    Zero,
    Characters(Vec<usize>),
    /// Where these tokens' text ends.
    After(Vec<Vec<Token>>),
}

/// `return_tokens_as_token_ids`, as vLLM has it.
fn spelling(ids: Option<bool>) -> Spelling {
    match ids {
        Some(true) => Spelling::Ids,
        Some(false) | None => Spelling::Text,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Whole,
    Stream,
    /// A stream with one more chunk that has the usage.
    StreamWithUsage,
}

/// `model`, which decides whether the rest is looked at.
pub(crate) fn model(model: Option<&String>) -> Result<&str, ApiError> {
    model.map(String::as_str).ok_or_else(|| missing("model"))
}

/// What a request needs of its model, in the order in which the caller should hear of it.
#[derive(Debug, Default)]
struct Needs(Vec<(&'static str, Feature)>);

impl Needs {
    fn feature(&mut self, param: &'static str, feature: Feature) {
        self.0.push((param, feature));
    }

    /// Whether the model can do all that. A model without an engine is refused for that, later.
    fn check(&self, offer: &Offer) -> Result<(), ApiError> {
        let Some(facts) = offer.facts() else {
            return Ok(());
        };
        match self
            .0
            .iter()
            .find(|(_, feature)| !facts.features.contains(feature))
        {
            Some((param, feature)) => Err(ApiError::unsupported(&offer.id, feature.name(), *param)),
            None => Ok(()),
        }
    }
}

const NAME_CHARS_MAX: usize = 64;

/// How functions and schemas may be named.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(letter)
}

pub(crate) fn missing(param: &str) -> ApiError {
    ApiError::invalid(param, format!("{param} is required"))
}

fn reply(stream: Option<bool>, options: Option<&StreamOptions>) -> Result<Reply, Invalid> {
    foreign::refuse_in_stream(options)?;
    match (stream.unwrap_or(false), options) {
        (false, None) => Ok(Reply::Whole),
        (false, Some(_)) => Err(Invalid::new(
            "stream_options",
            "stream_options is only allowed with stream",
        )),
        (
            true,
            Some(StreamOptions {
                include_usage: Some(true),
                others: _,
            }),
        ) => Ok(Reply::StreamWithUsage),
        (true, _) => Ok(Reply::Stream),
    }
}

fn choices(n: Option<Integer>) -> Result<Choices, Invalid> {
    n.map_or(Ok(Choices::ONE), |Integer(n)| Choices::new(n))
}

fn stop(stop: Option<weir_api::Stop>) -> Result<Stop, Invalid> {
    Stop::new(
        stop.map(|weir_api::Stop(strings)| strings)
            .unwrap_or_default(),
    )
}

/// `add_special_tokens` and `parse_special`, which are on unless they are switched off.
fn tokenizing(add_special_tokens: Option<bool>, parse_special: Option<bool>) -> Tokenizing {
    Tokenizing {
        bos: match add_special_tokens {
            Some(false) => Bos::Omit,
            Some(true) | None => Bos::Add,
        },
        control_tokens: parse_special.unwrap_or(true),
    }
}

/// The sampling fields, which both endpoints have under the same names.
macro_rules! sampling {
    ($body:ident) => {
        weir_engine::Sampling::new(weir_engine::request::SamplingFields {
            temperature: $body.temperature,
            top_p: $body.top_p,
            top_k: $body.top_k.map(|weir_api::Integer(top_k)| top_k),
            min_p: $body.min_p,
            presence_penalty: $body.presence_penalty,
            frequency_penalty: $body.frequency_penalty,
            repetition_penalty: $body.repetition_penalty,
            logit_bias: crate::convert::logit_bias($body.logit_bias.unwrap_or_default())?,
            seed: $body.seed.map(|weir_api::Integer(seed)| seed),
        })
    };
}
use sampling;

fn logit_bias(LogitBias(biases): LogitBias) -> Result<Vec<(Token, f64)>, Invalid> {
    let token = |(token, bias): (String, f64)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => Err(Invalid::new(
            "logit_bias",
            "the keys of logit_bias must be token ids",
        )),
    };
    biases.into_iter().map(token).collect()
}

const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";

/// The limit under either name, and that name; both only if they say the same.
fn max_tokens(
    old: Option<Integer>,
    new: Option<Integer>,
    min: i64,
) -> Result<(Option<u32>, &'static str), Invalid> {
    let of = |param: &str, value: Option<Integer>| match value {
        Some(Integer(tokens)) if tokens < min => Err(Invalid::new(
            param,
            format!("{param} must be at least {min}, got {tokens}"),
        )),
        // No context is that long.
        Some(Integer(tokens)) => Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX))),
        None => Ok(None),
    };
    match (of(MAX_TOKENS, old)?, of(MAX_COMPLETION_TOKENS, new)?) {
        (Some(old), Some(new)) if old != new => Err(Invalid::new(
            MAX_TOKENS,
            "max_tokens and max_completion_tokens are the same parameter; give one of them",
        )),
        (None, Some(new)) => Ok((Some(new), MAX_COMPLETION_TOKENS)),
        (old, _) => Ok((old, MAX_TOKENS)),
    }
}

/// Engines are the operator's to choose.
fn refuse_upstreams(api_base: Option<Anything>, base_url: Option<Anything>) -> Result<(), Invalid> {
    for (param, field) in [("api_base", api_base), ("base_url", base_url)] {
        if field.is_some() {
            return Err(Invalid::new(param, format!("{param} is not allowed")));
        }
    }
    Ok(())
}

fn within(
    param: &str,
    value: Option<Integer>,
    low: i64,
    high: i64,
) -> Result<Option<i64>, Invalid> {
    match value {
        Some(Integer(value)) if !(low..=high).contains(&value) => Err(Invalid::new(
            param,
            format!("{param} must be between {low} and {high}, got {value}"),
        )),
        value => Ok(value.map(|Integer(value)| value)),
    }
}

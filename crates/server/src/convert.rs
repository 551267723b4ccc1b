//! Conversion of the wire format to a [`Request`]. Every rule of the API about a parameter is checked here; later code
//! relies on it.

mod chat;
mod completion;
mod embeddings;
mod extensions;
mod foreign;
mod format;
mod scores;
mod tokens;
mod tools;

use weir_api::{Anything, Integer, LogitBias, StreamOptions, sampling};
use weir_engine::request::{Choices, Invalid, SamplingFields, Stop, Tokenizing};
use weir_engine::tokenizer::Bos;
use weir_engine::{Feature, Input, Request, Token};
use weir_gateway::{Delivery, Offer};

pub(crate) use self::chat::chat;
pub(crate) use self::completion::completion;
pub(crate) use self::embeddings::{Encoding, embeddings};
pub(crate) use self::tokens::{Text, tokenize};
use crate::answer::logprobs::Spelling;
use crate::error::{ApiError, ParamNames};

/// A converted request for text, of chats and of plain completions.
#[derive(Debug, Clone)]
pub struct ChatJob<S> {
    pub request: Request,
    pub delivery: Delivery,
    pub names: ParamNames,
    /// The request's wishes for the form of its answer.
    pub shape: S,
}

impl<S> ChatJob<S> {
    pub(crate) fn prompts(&self) -> u32 {
        match &self.request.input {
            Input::Chat(_) => 1,
            Input::Prompts(prompts) => u32::try_from(prompts.len()).expect("prompts are few"),
        }
    }
}

/// vLLM's `return_tokens_as_token_ids`.
fn spelling(ids: Option<bool>) -> Spelling {
    match ids {
        Some(true) => Spelling::Ids,
        Some(false) | None => Spelling::Text,
    }
}

/// The field `model`. It is read first: the offer that it names decides how other fields are checked.
pub(crate) fn model(model: Option<&str>) -> Result<&str, ApiError> {
    model.ok_or_else(|| missing("model"))
}

/// The features that a request needs of its model, in the order in which they are reported.
#[derive(Debug, Default)]
struct Needs(Vec<(&'static str, Feature)>);

impl Needs {
    fn feature(&mut self, param: &'static str, feature: Feature) {
        self.0.push((param, feature));
    }

    /// Refuses the request if the model lacks a feature. A model without an engine passes, and is refused later as
    /// unavailable.
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

/// Whether a function or a schema may have this name.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(letter)
}

pub(crate) fn missing(param: &str) -> ApiError {
    ApiError::invalid(param, format!("{param} is required"))
}

/// How the answer is delivered, and whether a stream has an additional chunk for the usage.
fn delivery(
    stream: Option<bool>,
    options: Option<&StreamOptions>,
) -> Result<(Delivery, bool), Invalid> {
    foreign::refuse_in_stream(options)?;
    match (stream.unwrap_or(false), options) {
        (false, None) => Ok((Delivery::Whole, false)),
        (false, Some(_)) => Err(Invalid::new(
            "stream_options",
            "stream_options is only allowed with stream",
        )),
        (true, options) => {
            let usage = options.and_then(|options| options.include_usage);
            Ok((Delivery::Stream, usage == Some(true)))
        }
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

/// The settings `add_special_tokens` and `parse_special`, both true by default.
fn tokenizing(add_special_tokens: Option<bool>, parse_special: Option<bool>) -> Tokenizing {
    Tokenizing {
        bos: match add_special_tokens {
            Some(false) => Bos::Omit,
            Some(true) | None => Bos::Add,
        },
        control_tokens: parse_special.unwrap_or(true),
    }
}

/// Checks the fields that change how tokens are drawn.
fn sampling(fields: sampling::Sampling) -> Result<weir_engine::Sampling, Invalid> {
    weir_engine::Sampling::new(SamplingFields {
        temperature: fields.temperature,
        top_p: fields.top_p,
        top_k: fields.top_k.map(|Integer(top_k)| top_k),
        min_p: fields.min_p,
        presence_penalty: fields.presence_penalty,
        frequency_penalty: fields.frequency_penalty,
        repetition_penalty: fields.repetition_penalty,
        logit_bias: logit_bias(fields.logit_bias.unwrap_or_default())?,
        seed: fields.seed.map(|Integer(seed)| seed),
    })
}

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

/// The limit of tokens and the name by which it came. Both names may be given only with the same value.
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

/// The operator chooses the engines: callers can't name an upstream server.
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

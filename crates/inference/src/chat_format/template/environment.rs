//! Jinja, set up as in Hugging Face's `transformers`.

use std::collections::BTreeMap;
use std::error::Error as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, State, Value, context};

use crate::chat_format::template::methods;

/// Limit on the work of one rendering: an instruction costs 1, as do 64 bytes. Enough for conversations far longer than a
/// context, and used up within a second.
const FUEL: u64 = 4_000_000;

const NAME: &str = "chat_template";
/// A name that no variable of a template can have.
const STAND_INS: &str = "stand-ins";

/// A template, ready to render.
#[derive(Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// The variables that a template gets.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) messages: Value,
    pub(super) tools: Value,
    pub(super) add_generation_prompt: bool,
    pub(super) switches: BTreeMap<String, Value>,
    /// Stand-ins, which are written unescaped.
    pub(super) stand_ins: String,
    pub(super) now: Timestamp,
}

/// The message that a template passes to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

impl Jinja {
    pub(super) fn new(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        Ok(Jinja {
            environment: environment(source)?,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    pub(super) fn render(&self, inputs: Inputs) -> Result<String, Error> {
        // Inputs that are absent are `none`, as in `transformers`. A switch can't replace the other variables.
        self.environment.get_template(NAME)?.render(context! {
            messages => inputs.messages,
            tools => inputs.tools,
            documents => (),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => inputs.add_generation_prompt,
            strftime_now => strftime_now(inputs.now),
            ..Value::from_pairs(inputs.switches.into_iter().chain([
                (STAND_INS.to_owned(), Value::from(inputs.stand_ins)),
            ]))
        })
    }
}

fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_fuel(Some(FUEL));
    methods::add(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, without_generation_tags(&unix_lines(source)))?;
    Ok(environment)
}

/// The stand-ins of this rendering.
pub(super) fn stand_ins(state: &State<'_, '_>) -> String {
    let value = state.lookup(STAND_INS).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// The function `strftime_now`, for a fixed time.
fn strftime_now(now: Timestamp) -> Value {
    Value::from_function(move |format: &str| {
        jiff::fmt::strtime::format(format, &now.to_zoned(TimeZone::UTC))
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    })
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let refusal = Refusal(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(refusal))
}

pub(super) fn refusal(error: &Error) -> Option<&Refusal> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refusal) = error.downcast_ref() {
            return Some(refusal);
        }
        source = error.source();
    }
    None
}

/// Replaces `{% generation %}`, which marks the assistant's text for training and has no effect on prompts.
fn without_generation_tags(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let (before, tag) = rest[..start + length].split_at(start);
        plain.push_str(before);
        match tag[2..].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => plain.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => plain.push_str(&tag.replace("endgeneration", "endif")),
            _ => plain.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    plain + rest
}

/// Jinja reads every end of a line as `\n`.
fn unix_lines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

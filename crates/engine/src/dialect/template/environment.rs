//! Jinja as Hugging Face's `transformers` sets it up.

use std::error::Error as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::dialect::template::methods;

/// Work that one rendering may do: an instruction costs 1, as do 64 bytes. Enough for conversations
/// far longer than a context, and over within a second.
const FUEL: u64 = 4_000_000;

/// The template's name in its environment.
pub(super) const NAME: &str = "chat_template";

/// What a template says by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
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

/// `strftime_now`, of one moment.
pub(super) fn strftime_now(now: Timestamp) -> Value {
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

/// `{% generation %}` marks the assistant's words for training; it means nothing here.
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

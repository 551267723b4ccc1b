//! Chat templates: Jinja as Hugging Face's `transformers` sets it up.

#[cfg(test)]
mod tests;

use std::error::Error as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

use super::python_json;
use crate::request::{Invalid, Message, Role, ToolCall};

/// Work that one rendering may do: an instruction costs 1, as do 64 bytes. Enough for conversations
/// far longer than a context, and over within a second.
const FUEL: u64 = 4_000_000;

const NAME: &str = "chat_template";

/// A model's own chat template. A rendering may take long: it belongs off the engine's thread.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// Whether the template has a role `developer`; in others it is a `system`.
    knows_developer: bool,
    /// Whether the template asks if content is none; others would print it, or fail, and get an
    /// empty text.
    knows_none: bool,
}

/// What a template says by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl ChatTemplate {
    /// Fails, with a text for the log, on what is no template or uses what nobody has heard of.
    pub fn parse(source: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let lower = source.to_lowercase();
        let template = ChatTemplate {
            environment: environment(source).map_err(|error| explain(&error))?,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            knows_developer: source.contains("developer"),
            knows_none: asks_for_none(&lower),
        };
        template.probe().map_err(|error| explain(&error))?;
        Ok(template)
    }

    /// The conversation as text, up to where the assistant's next words begin.
    pub fn render(&self, messages: &[Message], now: Timestamp) -> Result<String, Invalid> {
        self.try_render(messages, now).map_err(|error| {
            let message = match refusal(&error) {
                Some(refusal) => refusal.0.clone(),
                None if error.kind() == ErrorKind::OutOfFuel => {
                    "the conversation is too long for the model's chat template".to_owned()
                }
                None => {
                    tracing::warn!(error = explain(&error), "a chat template failed");
                    "the model's chat template can't render this conversation".to_owned()
                }
            };
            Invalid::new("messages", message)
        })
    }

    fn try_render(&self, messages: &[Message], now: Timestamp) -> Result<String, Error> {
        let messages: Vec<View<'_>> = messages.iter().map(|message| self.view(message)).collect();
        self.environment.get_template(NAME)?.render(context! {
            messages => Value::from(Serde(&messages)),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => true,
            strftime_now => Value::from_function(move |format: &str| strftime(format, now)),
        })
    }

    /// Names are looked up when a template runs, so let it run once before a caller does.
    fn probe(&self) -> Result<(), Error> {
        let hello = Message::new(Role::User, "Hello");
        match self.try_render(&[hello], Timestamp::UNIX_EPOCH) {
            Err(error) if is_unknown(error.kind()) => Err(error),
            // It may well want another conversation than this one.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn view<'a>(&self, message: &'a Message) -> View<'a> {
        View {
            role: match message.role {
                Role::Developer if self.knows_developer => "developer",
                Role::System | Role::Developer => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            },
            content: match &message.content {
                None if !self.knows_none => Some(""),
                content => content.as_deref(),
            },
            name: message.name.as_deref(),
            tool_calls: message.tool_calls.iter().map(CallView::new).collect(),
            tool_call_id: message.tool_call_id.as_deref(),
        }
    }
}

/// A message as templates see it.
#[derive(Debug, Serialize)]
struct View<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct CallView<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionView<'a>,
}

#[derive(Debug, Serialize)]
struct FunctionView<'a> {
    name: &'a str,
    /// The object that the JSON stands for; the text, if it stands for none.
    arguments: serde_json::Value,
}

impl<'a> CallView<'a> {
    fn new(call: &'a ToolCall) -> Self {
        let arguments = serde_json::from_str(&call.arguments)
            .unwrap_or_else(|_| serde_json::Value::String(call.arguments.clone()));
        CallView {
            id: &call.id,
            kind: "function",
            function: FunctionView {
                name: &call.name,
                arguments,
            },
        }
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
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("tojson", python_json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(environment)
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let refusal = Refusal(message.to_string());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(refusal))
}

fn refusal(error: &Error) -> Option<&Refusal> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refusal) = error.downcast_ref() {
            return Some(refusal);
        }
        source = error.source();
    }
    None
}

fn strftime(format: &str, now: Timestamp) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &now.to_zoned(TimeZone::UTC))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
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

/// Whether a template, in lower case, compares the content of messages with none.
fn asks_for_none(source: &str) -> bool {
    let compared = |rest: &str| {
        let rest = rest.trim_start_matches([']', '\'', '"']).trim_start();
        [" none", " not none"].iter().any(|none| {
            ["is", "==", "!="].iter().any(|operator| {
                rest.strip_prefix(operator)
                    .is_some_and(|rest| rest.starts_with(none))
            })
        })
    };
    source
        .match_indices("content")
        .any(|(at, word)| compared(&source[at + word.len()..]))
}

fn is_unknown(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownMethod
    )
}

/// An error and what caused it, on one line.
fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

//! Chat templates: Jinja as Hugging Face's `transformers` sets it up.

#[cfg(test)]
mod corpus;
mod environment;
mod methods;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error as _;

use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;

use self::environment::{NAME, environment, refusal, strftime_now};
use crate::request::{Invalid, Message, Role, ToolCall};

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
        self.render_messages(messages, now).map_err(|error| {
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

    fn render_messages(&self, messages: &[Message], now: Timestamp) -> Result<String, Error> {
        let messages: Vec<View<'_>> = messages.iter().map(|message| self.view(message)).collect();
        self.try_render(Inputs {
            messages: Value::from(Serde(&messages)),
            tools: Value::from(()),
            add_generation_prompt: true,
            kwargs: &BTreeMap::new(),
            now,
        })
    }

    fn try_render(&self, inputs: Inputs<'_>) -> Result<String, Error> {
        let kwargs = inputs.kwargs.iter();
        let kwargs = kwargs.map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        self.environment.get_template(NAME)?.render(context! {
            messages => inputs.messages,
            tools => inputs.tools,
            documents => (),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => inputs.add_generation_prompt,
            strftime_now => strftime_now(inputs.now),
            ..Value::from_pairs(kwargs)
        })
    }

    /// Names are looked up when a template runs, so let it run once before a caller does.
    fn probe(&self) -> Result<(), Error> {
        let hello = Message::new(Role::User, "Hello");
        match self.render_messages(&[hello], Timestamp::UNIX_EPOCH) {
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

/// What a template is given.
struct Inputs<'a> {
    messages: Value,
    tools: Value,
    add_generation_prompt: bool,
    kwargs: &'a BTreeMap<String, serde_json::Value>,
    now: Timestamp,
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

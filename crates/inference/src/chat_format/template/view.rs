//! Messages and tools as templates get them: as callers wrote them, except for what a template can't take.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::{Value as Json, json};
use weir_engine::request::{Message, Role, Tool, ToolCall};

/// The form in which a template wants messages and tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// A developer message keeps its role; otherwise it becomes a `system` message.
    pub(super) developer: bool,
    /// Content is a list of parts; otherwise it is a text.
    pub(super) parts: bool,
    /// Missing content is `none`; otherwise it is an empty text.
    pub(super) null_content: bool,
    /// A call's arguments are JSON text; otherwise they are an object.
    pub(super) text_arguments: bool,
    /// Ids of calls have nine letters and digits, as Mistral's templates demand.
    pub(super) short_ids: bool,
    /// A tool without a description gets an empty one.
    pub(super) described_tools: bool,
}

pub(super) fn messages(messages: &[Message], shape: Shape) -> Value {
    let views: Vec<View<'_>> = messages
        .iter()
        .map(|message| view(message, shape))
        .collect();
    Value::from(Serde(&views))
}

/// The tools; `none` if there are no tools.
pub(super) fn tools(tools: &[Tool], shape: Shape) -> Value {
    if tools.is_empty() {
        return Value::from(());
    }
    let views: Vec<Json> = tools.iter().map(|given| tool(given, shape)).collect();
    Value::from(Serde(&views))
}

#[derive(Debug, Serialize)]
struct View<'a> {
    /// gpt-oss's name for `reasoning_content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    role: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    None,
    Text(&'a str),
    Parts([Part<'a>; 1]),
}

#[derive(Debug, Serialize)]
struct Part<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct Call<'a> {
    id: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Debug, Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: Json,
}

fn view(message: &Message, shape: Shape) -> View<'_> {
    View {
        thinking: message.reasoning.as_deref(),
        role: match message.role {
            Role::Developer if shape.developer => "developer",
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        },
        content: match message.content.as_deref() {
            None if shape.null_content => Content::None,
            // Such a template renders either the content or the calls.
            Some("") if shape.null_content && !message.tool_calls.is_empty() => Content::None,
            content => {
                let text = content.unwrap_or_default();
                if shape.parts {
                    Content::Parts([Part { kind: "text", text }])
                } else {
                    Content::Text(text)
                }
            }
        },
        reasoning_content: message.reasoning.as_deref(),
        name: message.name.as_deref(),
        tool_calls: message
            .tool_calls
            .iter()
            .map(|made| call(made, shape))
            .collect(),
        tool_call_id: message.tool_call_id.as_deref().map(|id| call_id(id, shape)),
    }
}

fn call(call: &ToolCall, shape: Shape) -> Call<'_> {
    let arguments = match serde_json::from_str(&call.arguments) {
        Ok(object @ Json::Object(_)) if !shape.text_arguments => object,
        _ => Json::String(call.arguments.clone()),
    };
    Call {
        id: call_id(&call.id, shape),
        kind: "function",
        function: Function {
            name: &call.name,
            arguments,
        },
    }
}

/// The id, or a short id in its place: equal ids stay equal, and different ones differ unless their hashes collide.
fn call_id(id: &str, shape: Shape) -> Cow<'_, str> {
    let is_short = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_short || !shape.short_ids {
        return Cow::Borrowed(id);
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let mut rest = hasher.finish();
    let digits = (0..9).map(|_| {
        let digit = u32::try_from(rest % 36).expect("a digit is small");
        rest /= 36;
        char::from_digit(digit, 36).expect("it is a digit")
    });
    Cow::Owned(digits.collect())
}

/// A tool in OpenAI's format. Templates iterate over `parameters`, which callers may omit.
fn tool(tool: &Tool, shape: Shape) -> Json {
    let mut function = json!({"name": tool.name});
    match &tool.description {
        Some(description) => function["description"] = json!(description),
        None if shape.described_tools => function["description"] = json!(""),
        None => {}
    }
    function["parameters"] = match &tool.parameters {
        Some(parameters) => Json::clone(parameters),
        None => json!({"type": "object", "properties": {}}),
    };
    json!({"type": "function", "function": function})
}

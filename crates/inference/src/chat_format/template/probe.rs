//! Finds out by rendering what a template supports and in which form it wants messages, since its source doesn't say.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Error, ErrorKind, Value};
use serde_json::json;
use weir_engine::request::{Message, Role, Tool, ToolCall};

use super::environment::{Inputs, Jinja};
use super::view::{self, Shape};
use super::{Abilities, switches};

// Words that no template has in it.
const TEXT: &str = "weirprobetext";
const TOOL: &str = "weirprobetool";
const ARGUMENT: &str = "weirprobeargument";
const RESULT: &str = "weirproberesult";

/// If a prompt ends with one of these, the answer begins with reasoning.
const THINKING_MARKS: [&str; 6] = [
    "<think>",
    "<thinking>",
    "<seed:think>",
    "[THINK]",
    "<|START_THINKING|>",
    "<|channel|>analysis<|message|>",
];

/// Fails if the template can't render the simplest conversation because it uses an unknown name.
pub(super) fn probe(jinja: &Jinja) -> Result<(Abilities, Shape), Error> {
    let hello = [Message::new(Role::User, TEXT)];
    match jinja.render(inputs(&hello, &[], Shape::default(), None)) {
        // Unknown names are only found when a template runs.
        Err(error) if is_unknown(error.kind()) => return Err(error),
        // Other conversations would use up the fuel, too: don't spend it on each.
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            return Ok((Abilities::default(), Shape::default()));
        }
        // The template may merely demand another conversation than this one.
        Ok(_) | Err(_) => {}
    }
    let render = |messages: &[Message], tools: &[Tool], shape, thinking| {
        jinja.render(inputs(messages, tools, shape, thinking)).ok()
    };
    let developer = knows_developer(jinja);
    let (mut shape, tool_results) = best_shape(developer, &render);
    let undescribed = Tool {
        description: None,
        ..tool()
    };
    let takes = |shape| {
        shows(
            render(&hello, std::slice::from_ref(&undescribed), shape, None),
            TOOL,
        )
    };
    let described = Shape {
        described_tools: true,
        ..shape
    };
    if !takes(shape) && takes(described) {
        shape = described;
    }
    let system = [Message::new(Role::System, "Hello."), hello[0].clone()];
    let thinking = |thinking| render(&hello, &[], shape, thinking);
    let abilities = Abilities {
        tools: [&hello[..], &system[..]]
            .iter()
            .any(|messages| shows(render(messages, &[tool()], shape, None), TOOL)),
        tool_results,
        thinking_switch: thinking(Some(true)) != thinking(Some(false)),
        opens_thinking: thinking(None).is_some_and(|prompt| {
            THINKING_MARKS
                .iter()
                .any(|mark| prompt.trim_end().ends_with(mark))
        }),
        developer,
    };
    Ok((abilities, shape))
}

/// The shape in which the template renders most of a conversation with a call, and whether it renders all of it.
fn best_shape(
    developer: bool,
    render: &impl Fn(&[Message], &[Tool], Shape, Option<bool>) -> Option<String>,
) -> (Shape, bool) {
    let hello = [Message::new(Role::User, TEXT)];
    let plain = Shape {
        developer,
        ..Shape::default()
    };
    let as_parts = Shape {
        parts: true,
        ..plain
    };
    let takes = |shape| shows(render(&hello, &[], shape, None), TEXT);
    let parts = !takes(plain) && takes(as_parts);

    let mut best = (Shape { parts, ..plain }, 0);
    // The usual shape comes first, and stays unless another renders more.
    for choice in 0..8_u8 {
        let shape = Shape {
            null_content: choice & 1 != 0,
            text_arguments: choice & 2 != 0,
            short_ids: choice & 4 != 0,
            ..best.0
        };
        let seen = seen_of_call(render(&conversation_with_call(), &[tool()], shape, None));
        if seen > best.1 {
            best = (shape, seen);
        }
    }
    (best.0, best.1 == SEEN_ALL)
}

const SEEN_ALL: u8 = 3;

/// How much of the call and its result a rendering has in it. Arguments count half if they are in Python's quotes or in
/// another layer of JSON.
fn seen_of_call(rendering: Option<String>) -> u8 {
    let Some(rendering) = rendering else {
        return 0;
    };
    let is_plain = |(at, _)| {
        let before = &rendering[..at];
        !before.ends_with('\'') && !before.ends_with("\\\"")
    };
    let arguments = if rendering.match_indices(ARGUMENT).any(is_plain) {
        2
    } else {
        u8::from(rendering.contains(ARGUMENT))
    };
    arguments + u8::from(rendering.contains(RESULT))
}

/// Whether the template knows the role `developer`, instead of only writing whatever role a message has.
fn knows_developer(jinja: &Jinja) -> bool {
    let render = |role: &str| {
        let messages =
            json!([{"role": role, "content": TEXT}, {"role": "user", "content": "Hello."}]);
        let messages = Value::from(Serde(&messages));
        jinja
            .render(Inputs {
                messages,
                ..inputs(&[], &[], Shape::default(), None)
            })
            .ok()
    };
    let Some(developer) = render("developer").filter(|text| text.contains(TEXT)) else {
        return false;
    };
    render("stranger").is_none_or(|stranger| stranger != developer.replace("developer", "stranger"))
}

fn inputs(messages: &[Message], tools: &[Tool], shape: Shape, thinking: Option<bool>) -> Inputs {
    let kwargs = thinking.map(|thinking| ("enable_thinking".to_owned(), json!(thinking)));
    let kwargs: BTreeMap<_, _> = kwargs.into_iter().collect();
    Inputs {
        messages: view::messages(messages, shape),
        tools: view::tools(tools, shape),
        add_generation_prompt: true,
        switches: switches::checked(&kwargs).expect("the switch is one"),
        stand_ins: String::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn tool() -> Tool {
    let parameters = json!({"type": "object", "properties": {"key": {"type": "string", "description": "A key."}}});
    Tool {
        name: TOOL.to_owned(),
        description: Some("A tool.".to_owned()),
        parameters: Some(Arc::new(parameters)),
        parameters_text: None,
        strict: false,
    }
}

fn conversation_with_call() -> [Message; 3] {
    let id = "call_a1b2c3d4e5f6".to_owned();
    let call = ToolCall {
        id: id.clone(),
        name: TOOL.to_owned(),
        arguments: json!({"key": ARGUMENT}).to_string(),
    };
    let called = Message {
        content: None,
        tool_calls: vec![call],
        ..Message::new(Role::Assistant, "")
    };
    let result = Message {
        name: Some(TOOL.to_owned()),
        tool_call_id: Some(id),
        ..Message::new(Role::Tool, RESULT)
    };
    [Message::new(Role::User, TEXT), called, result]
}

fn shows(rendering: Option<String>, word: &str) -> bool {
    rendering.is_some_and(|rendering| rendering.contains(word))
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

mod calls;
mod cuts;
mod events;
mod reasoning;

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_engine::event::{Channel, Event, FinishReason, TokenLogprob, Usage};

use super::*;
use crate::chat_format::format::*;

fn tools() -> Arc<[Tool]> {
    let tool = |name: &str, properties: Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(Arc::new(
            json!({"type": "object", "properties": properties}),
        )),
        parameters_text: None,
        strict: false,
    };
    [
        tool(
            "weather",
            json!({
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "deep": {"type": "object"},
                "unit": {"enum": ["C", "F"]},
                "maybe": {"type": ["string", "null"]},
            }),
        ),
        tool("weather_of-2", json!({"x": {"type": "string"}})),
        tool("now", json!({})),
    ]
    .into()
}

fn calling(format: &'static Format) -> ParseRules {
    ParseRules {
        calls: Some(Calls {
            format,
            tools: tools(),
            one_at_a_time: false,
        }),
        ..ParseRules::default()
    }
}

fn thinking(opened: Option<&str>, separate: bool) -> ParseRules {
    ParseRules {
        thinking: Some(Thinking {
            open: "<think>",
            close: "</think>",
            opened: opened.map(str::to_owned),
            separate,
        }),
        ..ParseRules::default()
    }
}

/// Shows content as it is, reasoning in `‹›`, and calls as `name(arguments)`.
fn shown(parts: &[OutputPart]) -> String {
    let mut text = String::new();
    let mut call_is_open = false;
    for part in parts {
        if call_is_open && !matches!(part, OutputPart::Text(Channel::Call(_), _)) {
            text.push(')');
            call_is_open = false;
        }
        match part {
            OutputPart::Text(Channel::Content, content) => text.push_str(content),
            OutputPart::Text(Channel::Reasoning, thought) => text.push_str(&format!("‹{thought}›")),
            OutputPart::Text(Channel::Call(_), arguments) => text.push_str(arguments),
            OutputPart::Call { call, name } => {
                text.push_str(&format!("{call}:{name}("));
                call_is_open = true;
            }
        }
    }
    text + if call_is_open { ")" } else { "" }
}

/// Parses a text in parts, and joins consecutive texts of one channel.
fn read<'a>(
    rules: &ParseRules,
    parts: impl Iterator<Item = &'a str>,
    ended: bool,
) -> Vec<OutputPart> {
    let mut parser = OutputParser::new(Arc::new(rules.clone()));
    let mut parts: Vec<OutputPart> = parts.flat_map(|part| parser.push(part)).collect();
    parts.extend(parser.finish(ended));
    let mut joined: Vec<OutputPart> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (_, OutputPart::Text(_, text)) if text.is_empty() => panic!("an empty piece"),
            (Some(OutputPart::Text(channel, before)), OutputPart::Text(next, text))
                if *channel == next =>
            {
                before.push_str(&text);
            }
            (_, part) => joined.push(part),
        }
    }
    joined
}

/// Parses a text, and checks that the result doesn't depend on where the text is cut.
fn whole(rules: &ParseRules, text: &str, ended: bool) -> String {
    let whole = shown(&read(rules, [text].into_iter(), ended));
    for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        let parts = [&text[..cut], &text[cut..]];
        assert_eq!(
            shown(&read(rules, parts.into_iter(), ended)),
            whole,
            "cut at {cut}: {text}"
        );
    }
    let chars = text
        .char_indices()
        .map(|(at, c)| &text[at..at + c.len_utf8()]);
    assert_eq!(
        shown(&read(rules, chars, ended)),
        whole,
        "one by one: {text}"
    );
    whole
}

fn check(rules: &ParseRules, text: &str, expected: &str) {
    assert_eq!(whole(rules, text, true), expected, "{text}");
}

/// Like [`check`], for an answer that was cut off.
fn check_cut(rules: &ParseRules, text: &str, expected: &str) {
    assert_eq!(whole(rules, text, false), expected, "{text}");
}

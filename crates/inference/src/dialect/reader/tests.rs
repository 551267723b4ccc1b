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
use crate::dialect::format::*;

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

fn calling(format: &'static Format) -> Means {
    Means {
        calls: Some(Calls {
            format,
            tools: tools(),
            one_at_a_time: false,
        }),
        ..Means::default()
    }
}

fn thinking(opened: Option<&str>, separate: bool) -> Means {
    Means {
        thinking: Some(Thinking {
            open: "<think>",
            close: "</think>",
            opened: opened.map(str::to_owned),
            separate,
        }),
        ..Means::default()
    }
}

/// Shows content as it is, reasoning in `‹›`, and calls as `name(arguments)`.
fn shown(pieces: &[Piece]) -> String {
    let mut text = String::new();
    let mut call_is_open = false;
    for piece in pieces {
        if call_is_open && !matches!(piece, Piece::Text(Channel::Call(_), _)) {
            text.push(')');
            call_is_open = false;
        }
        match piece {
            Piece::Text(Channel::Content, content) => text.push_str(content),
            Piece::Text(Channel::Reasoning, thought) => text.push_str(&format!("‹{thought}›")),
            Piece::Text(Channel::Call(_), arguments) => text.push_str(arguments),
            Piece::Call { call, name } => {
                text.push_str(&format!("{call}:{name}("));
                call_is_open = true;
            }
        }
    }
    text + if call_is_open { ")" } else { "" }
}

/// Parses a text in parts, and joins consecutive texts of one channel.
fn read<'a>(means: &Means, parts: impl Iterator<Item = &'a str>, ended: bool) -> Vec<Piece> {
    let mut reader = Reader::new(Arc::new(means.clone()));
    let mut pieces: Vec<Piece> = parts.flat_map(|part| reader.push(part)).collect();
    pieces.extend(reader.finish(ended));
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (_, Piece::Text(_, text)) if text.is_empty() => panic!("an empty piece"),
            (Some(Piece::Text(channel, before)), Piece::Text(next, text)) if *channel == next => {
                before.push_str(&text);
            }
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// Parses a text, and checks that the result doesn't depend on where the text is cut.
fn whole(means: &Means, text: &str, ended: bool) -> String {
    let whole = shown(&read(means, [text].into_iter(), ended));
    for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        let parts = [&text[..cut], &text[cut..]];
        assert_eq!(
            shown(&read(means, parts.into_iter(), ended)),
            whole,
            "cut at {cut}: {text}"
        );
    }
    let chars = text
        .char_indices()
        .map(|(at, c)| &text[at..at + c.len_utf8()]);
    assert_eq!(
        shown(&read(means, chars, ended)),
        whole,
        "one by one: {text}"
    );
    whole
}

fn check(means: &Means, text: &str, expected: &str) {
    assert_eq!(whole(means, text, true), expected, "{text}");
}

/// Like [`check`], for an answer that was cut off.
fn check_cut(means: &Means, text: &str, expected: &str) {
    assert_eq!(whole(means, text, false), expected, "{text}");
}

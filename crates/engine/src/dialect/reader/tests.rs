use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::dialect::format::*;
use crate::event::{Channel, Event, FinishReason, TokenLogprob, Usage};

fn tools() -> Arc<[Tool]> {
    let tool = |name: &str, properties: Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(Arc::new(
            json!({"type": "object", "properties": properties}),
        )),
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

/// Content plain, reasoning in `‹›`, calls as `name(arguments)`.
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

/// Reads a text in parts, and joins what belongs together.
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

/// What a text reads as, which must not depend on where it was cut.
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

/// The same for an answer that was cut off.
fn check_cut(means: &Means, text: &str, expected: &str) {
    assert_eq!(whole(means, text, false), expected, "{text}");
}

#[test]
fn reasoning() {
    let apart = thinking(None, true);
    check(&apart, "<think>\nWhy? <b> </think>\n\nSo.", "‹Why? <b>›So.");
    check(&apart, "\n <think>Why?</think>", "‹Why?›");
    check(&apart, "<think></think>\n\nSo.", "So.");
    check(&apart, " So <think>x</think>", " So <think>x</think>");
    check(&apart, "<thin", "<thin");
    check(&apart, "  ", "  ");
    check(
        &apart,
        "<think>a</think>b<think>c</think>",
        "‹a›b<think>c</think>",
    );
    check_cut(&apart, "<think>still </thi", "‹still </thi›");
    let opened = thinking(Some("<think>\n"), true);
    check(&opened, "Why?\n</think>\n\nSo. ", "‹Why?›So. ");
    check(&opened, "</think>So.", "So.");
    check_cut(&opened, "Why?", "‹Why?›");
    check(&opened, "", "");
    let inside = thinking(Some("<think>\n"), false);
    check(
        &inside,
        "Why?\n</think>\n\nSo.",
        "<think>\nWhy?\n</think>\n\nSo.",
    );
    check(&inside, "", "<think>\n");
    let inside = thinking(None, false);
    for text in ["\n<think>\nWhy?\n</think>\n\nSo. ", "So.", " <think>", " "] {
        check(&inside, text, text);
    }
}

#[test]
fn reasoning_and_calls() {
    let both = |separate| Means {
        calls: calling(&HERMES).calls,
        ..thinking(Some("<think>"), separate)
    };
    let text = "\nI <tool_call> it.\n</think>\n\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    check(&both(true), text, "‹I <tool_call> it.›0:now({})");
    check(
        &both(false),
        text,
        "<think>\nI <tool_call> it.\n</think>0:now({})",
    );
}

#[test]
fn hermes() {
    let means = calling(&HERMES);
    let check = |text: &str, expected: &str| check(&means, text, expected);
    check("", "");
    check("Just text. ", "Just text. ");
    check("a < b <tool_cal", "a < b <tool_cal");
    check(
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln 🙂\", \"n\": 1.50}}\n</tool_call>",
        "0:weather({\"city\": \"Köln 🙂\", \"n\": 1.50})",
    );
    // As the model wrote it, to the last digit and space.
    check(
        r#"<tool_call>{"name":"weather","arguments":{ "big":12345678901234567890,"s":"\u00e9\ud83d\ude42" }}</tool_call>"#,
        r#"0:weather({ "big":12345678901234567890,"s":"\u00e9\ud83d\ude42" })"#,
    );
    check(
        "Let me see.\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"weather\", \"arguments\": {\"deep\": {\"a\": [1, {\"b\": \"}\"}]}}}</tool_call>\nDone.",
        "Let me see.0:now({})1:weather({\"deep\": {\"a\": [1, {\"b\": \"}\"}]}})\nDone.",
    );
    // Arguments first, and the mark within a string.
    check(
        r#"<tool_call>{"arguments": {"city": "</tool_call>\""}, "id": [1], "name": "weather"}</tool_call>"#,
        r#"0:weather({"city": "</tool_call>\""})"#,
    );
    check(
        r#"<tool_call>{"type": "function", "function": {"name": "now", "arguments": {"x": 1}}}</tool_call>!"#,
        r#"0:now({"x": 1})!"#,
    );
    // Arguments as a string, none, null.
    check(
        r#"<tool_call>{"name": "weather", "arguments": "{\"city\": \"K\\u00f6ln\"}"}</tool_call>"#,
        r#"0:weather({"city": "K\u00f6ln"})"#,
    );
    check(r#"<tool_call>{"name": "now"}</tool_call>"#, "0:now({})");
    check(
        r#"<tool_call>{"name": "now", "arguments": null}</tool_call>"#,
        "0:now({})",
    );
    // Two in one mark, and a list.
    check(
        "<tool_call>[{\"name\": \"now\"}, {\"name\": \"now\"}]\n{\"name\": \"now\"}</tool_call>",
        "0:now({})1:now({})2:now({})",
    );
}

#[test]
fn what_is_no_call_is_text() {
    let means = calling(&HERMES);
    for text in [
        "<tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>now</tool_call>",
        "x <tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call> y",
        "<tool_call>{\"name\": \"weathe\"}</tool_call>",
        "<tool_call>{\"name\": \"weather_\"}</tool_call>",
        "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
        "<tool_call>{\"name\": 5}</tool_call>",
        "<tool_call>{name: now}</tool_call>",
        " <tool_call>[[{\"name\": \"now\"}]]</tool_call>",
        "<tool_call>{\"name\": \"no",
        "<tool_call>{\"arguments\": {\"name\": \"now\"",
    ] {
        check(&means, text, text);
        check_cut(&means, text, text);
    }
    // Text, and then a call.
    check(
        &means,
        "<tool_call><tool_call>{\"name\": \"now\"}</tool_call>",
        "<tool_call>0:now({})",
    );
    check(
        &means,
        "<tool_call>{\"name\": \"x\"}</tool_call> <tool_call>{\"name\": \"now\"}</tool_call>",
        "<tool_call>{\"name\": \"x\"}</tool_call>0:now({})",
    );
}

#[test]
fn broken_calls_end() {
    let means = calling(&HERMES);
    let check = |text: &str, expected: &str| check(&means, text, expected);
    // Brackets that are missing.
    check("<tool_call>{\"name\": \"now\"</tool_call>x", "0:now({})x");
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1</tool_call>x",
        "0:now({\"a\": 1)x",
    );
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}</tool_call>x",
        "0:now({\"a\": 1})x",
    );
    // No mark behind it, half a mark, another.
    check(
        "<tool_call>{\"name\": \"now\"} and so on",
        "0:now({})and so on",
    );
    check("<tool_call>{\"name\": \"now\"}</tool_", "0:now({})");
    check(
        "<tool_call>{\"name\": \"now\"}</tool_x",
        "0:now({})</tool_x",
    );
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": <</tool_call>",
        "0:now({\"a\": <)",
    );
    // What a model didn't write when it was cut off isn't made up.
    check("<tool_call>{\"name\": \"now\"", "0:now({})");
    check_cut(&means, "<tool_call>{\"name\": \"now\"", "0:now()");
    check_cut(
        &means,
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"K",
        "0:weather({\"city\": \"K)",
    );
}

#[test]
fn lists_and_bare_calls() {
    let mistral = calling(&MISTRAL_LIST);
    check(
        &mistral,
        "Well.[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}, \"id\": \"a]b\"}, {\"name\": \"weather\", \"arguments\": {\"city\": \"X\"}}]",
        "Well.0:now({})1:weather({\"city\": \"X\"})",
    );
    check(
        &mistral,
        "[TOOL_CALLS][{\"name\": \"x\"}] [1]",
        "[TOOL_CALLS][{\"name\": \"x\"}] [1]",
    );
    let llama = calling(&LLAMA);
    check(
        &llama,
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"X\"}}; {\"name\": \"now\", \"parameters\": {}}",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
    check(
        &llama,
        "<|python_tag|>{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}",
        "0:now({})",
    );
    for text in [
        "{\"answer\": 42}",
        "{\"name\": \"other\"}",
        "[1, 2]",
        "So: {\"name\": \"now\"}",
        "{}",
    ] {
        check(&llama, text, text);
    }
    let granite = calling(&GRANITE);
    check(
        &granite,
        "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|>",
        "0:now({})",
    );
    check(
        &granite,
        "<tool_call>[{\"name\": \"now\", \"arguments\": {}}]",
        "0:now({})",
    );
}

#[test]
fn named_calls() {
    let mistral = calling(&MISTRAL);
    check(
        &mistral,
        "Hm.\n[TOOL_CALLS]weather[ARGS]{\"city\": \"a[TOOL_CALLS]\"}[TOOL_CALLS]now[CALL_ID]abc123[ARGS]{}",
        "Hm.0:weather({\"city\": \"a[TOOL_CALLS]\"})1:now({})",
    );
    check(
        &mistral,
        "[TOOL_CALLS]weather_of-2{\"x\": 1} ",
        "0:weather_of-2({\"x\": 1})",
    );
    check(
        &mistral,
        "[TOOL_CALLS]other[ARGS]{}",
        "[TOOL_CALLS]other[ARGS]{}",
    );
    check(&mistral, "[TOOL_CALLS]now[ARGS]", "0:now({})");
    check_cut(&mistral, "[TOOL_CALLS]now[ARGS]", "0:now()");
    check(
        &calling(&DEEPSEEK_V3),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"<｜tool▁call▁end｜>\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "0:weather({\"city\": \"<｜tool▁call▁end｜>\"})1:now({})",
    );
    check(
        &calling(&DEEPSEEK_V31),
        "Text<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"X\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Text0:weather({\"city\": \"X\"})",
    );
    let kimi = calling(&KIMI_K2);
    check(
        &kimi,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"X\"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
    check(
        &kimi,
        "<|tool_call_begin|>now:0",
        "<|tool_call_begin|>now:0",
    );
}

#[test]
fn tagged_calls() {
    let qwen = calling(&QWEN_CODER);
    check(
        &qwen,
        "Sure.\n<tool_call>\n<function=weather>\n<parameter=city>\nNew\n\"York\"\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=deep>\n{\"a\": [1]}\n</parameter>\n<parameter=maybe>\n12\n</parameter>\n<parameter=unit>\n5\n</parameter>\n</function>\n</tool_call>",
        "Sure.0:weather({\"city\": \"New\\n\\\"York\\\"\", \"days\": 3, \"deep\": {\"a\": [1]}, \"maybe\": 12, \"unit\": \"5\"})",
    );
    check(
        &qwen,
        "<tool_call>\n<function=now>\n</function>\n</tool_call>\n",
        "0:now({})",
    );
    check(
        &qwen,
        "<tool_call><function=now></function><function=now></function></tool_call>x",
        "0:now({})1:now({})x",
    );
    check(
        &qwen,
        "<tool_call>\n<function=other>\n",
        "<tool_call>\n<function=other>\n",
    );
    check(
        &qwen,
        "<tool_call><function=weather><parameter=city></parameter><parameter=days>many</parameter><parameter=x>True</parameter>",
        "0:weather({\"city\": \"\", \"days\": \"many\", \"x\": true})",
    );
    check(
        &qwen,
        "<tool_call><function=weather><parameter=city>a\n</para",
        "0:weather({\"city\": \"a\\n</para\"})",
    );
    check_cut(
        &qwen,
        "<tool_call><function=weather><parameter=city>Ab",
        "0:weather({\"city\": \"Ab)",
    );
    check(
        &calling(&GLM),
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now</tool_call>",
        "0:weather({\"city\": \"Köln\\n\", \"days\": 3})1:now({})",
    );
    check(
        &calling(&MINIMAX),
        "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">X</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
}

#[test]
fn harmony() {
    let means = |separate| Means {
        harmony: true,
        ..Means {
            calls: calling(&HERMES).calls,
            ..thinking(None, separate)
        }
    };
    let text = "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>final<|message|>So.<|return|>";
    check(&means(true), text, "‹Why?›So.");
    check(&means(false), text, "<think>\nWhy?\n</think>\n\nSo.");
    check(
        &means(true),
        "<|channel|>analysis<|message|>I must<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"X\"}<|call|>",
        "‹I must›0:weather({\"city\": \"X\"})",
    );
    check(
        &means(true),
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>",
        "0:now({})",
    );
    check(
        &means(true),
        "<|channel|>commentary to=functions.x<|message|>{}",
        "{}",
    );
    check(&means(true), "plain <|", "plain <|");
}

#[test]
fn one_call_at_a_time() {
    let mut means = calling(&HERMES);
    means.calls.as_mut().unwrap().one_at_a_time = true;
    check(
        &means,
        "<tool_call>{\"name\": \"now\"}</tool_call><tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}}</tool_call>x",
        "0:now({})x",
    );
}

/// Parts of outputs, right and wrong, in any order.
const PARTS: [&str; 26] = [
    "<tool_call>",
    "</tool_call>",
    "\n",
    " ",
    "{\"name\": \"now\"",
    "{\"name\": \"",
    "weather",
    "now",
    "\"",
    ", \"arguments\": ",
    "{\"city\": \"",
    "ü🙂",
    "\\",
    "{",
    "}",
    "[",
    "]",
    "<think>",
    "</think>",
    "<",
    "[TOOL_CALLS]",
    "<function=",
    "<parameter=city>",
    "</parameter>",
    "null",
    ":",
];

proptest! {
    #[test]
    fn any_text_reads_the_same_however_it_is_cut(
        parts in prop::collection::vec(prop::sample::select(PARTS.as_slice()), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        format in 0..10usize,
        ended: bool,
        separate: bool,
        opened: bool,
    ) {
        let formats = [
            &HERMES, &LLAMA, &MISTRAL_LIST, &MISTRAL, &GRANITE, &DEEPSEEK_V3, &QWEN_CODER, &GLM,
            &MINIMAX, &KIMI_K2,
        ];
        let means = Means {
            calls: calling(formats[format]).calls,
            ..thinking(opened.then_some("<think>\n"), separate)
        };
        let text = parts.concat();
        let mut cuts: Vec<usize> = cuts
            .iter()
            .map(|cut| cut.index(text.len() + 1))
            .filter(|&cut| text.is_char_boundary(cut))
            .chain([0, text.len()])
            .collect();
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        let whole = read(&means, [text.as_str()].into_iter(), ended);
        prop_assert_eq!(read(&means, pieces, ended), whole);
    }

    /// Whatever can be written as a call of Hermes comes back as it was.
    #[test]
    fn calls_come_back(values in prop::collection::vec(".*", 0..4), compact: bool) {
        let arguments = serde_json::to_string(&json!({"list": values})).unwrap();
        let text = if compact {
            format!("<tool_call>{{\"name\":\"weather\",\"arguments\":{arguments}}}</tool_call>")
        } else {
            format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {arguments}}}\n</tool_call>")
        };
        let pieces = read(&calling(&HERMES), [text.as_str()].into_iter(), true);
        let name = "weather".to_owned();
        prop_assert_eq!(
            pieces,
            [Piece::Call { call: 0, name }, Piece::Text(Channel::Call(0), arguments)]
        );
    }
}

/// What the events of an engine become, with the tokens and log-probabilities of each text, and the
/// tokens of reasoning.
fn events(means: Means, texts: &[&str], reason: FinishReason) -> (Vec<String>, u64) {
    let mut readers = Readers::new(Reading::new(means));
    let mut ready = VecDeque::new();
    for (token, text) in (0..).zip(texts) {
        let logprob = TokenLogprob {
            token,
            bytes: text.as_bytes().to_vec(),
            logprob: Some(-1.0),
            top: Vec::new(),
        };
        let text = Event::Text {
            choice: 7,
            channel: Channel::Content,
            text: (*text).to_owned(),
            tokens: 1,
            logprobs: vec![logprob],
        };
        readers.read(text, &mut ready);
    }
    readers.read(Event::Finished { choice: 7, reason }, &mut ready);
    readers.read(Event::Done(Usage::default()), &mut ready);
    let mut reasoning = 0;
    let mut seen = Vec::new();
    for event in ready {
        seen.push(match event {
            Event::Text {
                choice: 7,
                channel,
                text,
                tokens,
                logprobs,
            } => {
                let scored: Vec<u32> = logprobs.iter().map(|score| score.token).collect();
                format!("{channel:?} {text:?} {tokens} {scored:?}")
            }
            Event::Call {
                choice: 7,
                call,
                name,
            } => format!("{call}:{name}"),
            Event::Finished { choice: 7, reason } => format!("{reason:?}"),
            Event::Done(usage) => {
                reasoning = usage.reasoning;
                continue;
            }
            other => panic!("{other:?}"),
        });
    }
    (seen, reasoning)
}

#[test]
fn tokens_go_along_with_text() {
    let check = |means: Means, texts: &[&str], reason, expected: &[&str], reasoning: u64| {
        let (seen, counted) = events(means, texts, reason);
        assert_eq!(seen, expected);
        assert_eq!(counted, reasoning, "{texts:?}");
    };
    let both = || Means {
        calls: calling(&HERMES).calls,
        ..thinking(None, true)
    };
    check(
        both(),
        &[
            "<think>",
            "\n",
            "Hm",
            "\n",
            "</th",
            "ink>",
            "\n\n",
            "<tool_call>",
            "{\"name\": \"now\"",
            ", \"arguments\": {",
            "}}",
            "</tool_call>",
        ],
        FinishReason::Stop,
        &[
            "Reasoning \"Hm\" 3 [0, 1, 2]",
            "0:now",
            "Call(0) \"{\" 7 [3, 4, 5, 6, 7, 8, 9]",
            "Call(0) \"}\" 1 [10]",
            "Call(0) \"\" 1 [11]",
            "ToolCalls",
        ],
        6,
    );
    check(
        both(),
        &["a", " ", "b", " "],
        FinishReason::Length,
        &[
            "Content \"a\" 1 [0]",
            "Content \" b\" 2 [1, 2]",
            "Content \" \" 1 [3]",
            "Length",
        ],
        0,
    );
    check(
        both(),
        &["<tool_call>{\"name\": \"now\""],
        FinishReason::Length,
        &["0:now", "Content \"\" 1 [0]", "Length"],
        0,
    );
}

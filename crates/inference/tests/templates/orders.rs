//! No conversation that follows OpenAI's rules is refused because of a template, and the prompt has in it what users,
//! tools and the system wrote. Tested with every template of this directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sim::SimTokenizer;
use weir_engine::request::{Message, Role, Tool, ToolCall, Tools};

fn subjects() -> Vec<(String, ChatFormat)> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    let others = std::env::var_os("WEIR_TEST_TEMPLATES").map(PathBuf::from);
    let mut paths: Vec<PathBuf> = [home]
        .into_iter()
        .chain(others)
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jinja")
        })
        .collect();
    paths.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/alternating.jinja"));
    paths.sort();
    let subject = |path: &PathBuf| {
        let source = fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, chat_format(&source))
    };
    paths.iter().map(subject).collect()
}

fn chat_format(source: &str) -> ChatFormat {
    let template = ChatTemplate::parse(source, "<bos>", "<eos>").unwrap();
    ChatFormat::new(template, source, &SimTokenizer)
}

fn prompt(chat_format: &ChatFormat, messages: &[Message], tools: bool) -> Result<String, Invalid> {
    let tool = Tool {
        name: "look".to_owned(),
        description: None,
        parameters: Some(Arc::new(
            json!({"type": "object", "properties": {"place": {"type": "string"}}}),
        )),
        parameters_text: None,
        strict: false,
    };
    let conversation = Conversation {
        messages: messages.to_vec(),
        tools: Tools {
            tools: if tools { vec![tool] } else { Vec::new() },
            ..Tools::default()
        },
        ..Conversation::default()
    };
    let rendered =
        chat_format.render_prompt(&conversation, &Format::Text, Timestamp::UNIX_EPOCH)?;
    Ok(rendered.prompt.text)
}

const ARGUMENTS: [&str; 9] = [
    r#"{"place": "Bern"}"#,
    "{}",
    "",
    r#"{"place": "Be"#,
    r#"["Bern"]"#,
    r#""Bern""#,
    "null",
    "Bern, please",
    r#""{\"place\": 1}""#,
];

fn calling(ids: &[&str], arguments: &str) -> Vec<ToolCall> {
    let call = |id: &&str| ToolCall {
        id: (*id).to_owned(),
        name: "look".to_owned(),
        arguments: arguments.to_owned(),
    };
    ids.iter().map(call).collect()
}

fn result(id: &str, content: &str) -> Message {
    Message {
        tool_call_id: Some(id.to_owned()),
        ..Message::new(Role::Tool, content)
    }
}

/// Messages whose texts are unique words.
fn conversations() -> impl Strategy<Value = Vec<Message>> {
    let ids = prop::sample::subsequence(vec!["call_one", "call00002", "3"], 0..3);
    let message = (0..7_u8, ids, prop::sample::select(&ARGUMENTS[..]));
    prop::collection::vec(message, 1..9).prop_map(|drawn| {
        let message = |(i, (kind, ids, arguments)): (usize, (u8, Vec<&str>, &str))| {
            let word = format!("word{i}said");
            match kind {
                0 => Message::new(Role::System, word),
                1 => Message::new(Role::Developer, word),
                2 | 3 => Message::new(Role::User, word),
                4 => Message::new(Role::Assistant, word),
                5 => Message {
                    content: (ids.len() != 1).then_some(word),
                    tool_calls: calling(&ids, arguments),
                    ..Message::new(Role::Assistant, "")
                },
                _ => result(ids.first().unwrap_or(&"call_one"), &word),
            }
        };
        drawn.into_iter().enumerate().map(message).collect()
    })
}

/// Texts of users, tools and the system that aren't in a prompt.
fn lost<'m>(messages: &'m [Message], prompt: &str) -> Vec<&'m str> {
    let others = messages
        .iter()
        .filter(|message| message.role != Role::Assistant);
    let words = others.filter_map(|message| message.content.as_deref());
    words.filter(|word| !prompt.contains(word)).collect()
}

#[test]
fn no_conversation_is_refused() {
    let subjects = subjects();
    let config = ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(messages in conversations(), at in 0..subjects.len(), tools: bool)| {
        let (name, chat_format) = &subjects[at];
        // This template can't render any conversation, not even in Python.
        prop_assume!(!name.contains("firefunction"));
        let prompt = prompt(chat_format, &messages, tools);
        let prompt = prompt.map_err(|refused| TestCaseError::fail(format!("{name}: {refused}")))?;
        // These templates render the system's text within the last user message, and only if that is the last message.
        let answered = messages.last().is_some_and(|last| last.role != Role::User);
        prop_assume!(!answered || !(name.contains("istral") || name.contains("pixtral")));
        let lost = lost(&messages, &prompt);
        prop_assert!(lost.is_empty(), "{}: {:?} in {}", name, lost, prompt);
    });
}

/// The prompts of typical conversations of agents, and which message an error names.
#[test]
fn conversations_of_agents() {
    let qwen = chat_format(include_str!("qwen3.5.jinja"));
    let user = || Message::new(Role::User, "Weather?");
    let called = |arguments: &str| Message {
        tool_calls: calling(&["call_one"], arguments),
        ..Message::new(Role::Assistant, "")
    };
    let check = |messages: &[Message], parts: &[&str]| {
        let prompt = prompt(&qwen, messages, true).unwrap();
        for part in parts {
            assert!(prompt.contains(part), "{part} in {prompt}");
        }
    };
    // A call that was cut off at the token limit.
    check(
        &[
            user(),
            called(r#"{"place": "Be"#),
            result("call_one", "Sun."),
        ],
        &["<parameter=place>\nBe\n</parameter>", "Sun."],
    );
    check(
        &[user(), called(""), result("call_one", "Sun.")],
        &["<function=look>\n</function>"],
    );
    check(
        &[user(), called("[1]"), result("call_one", "Sun.")],
        &["<parameter=arguments>\n[1]\n</parameter>"],
    );
    // Names of special tokens that broken arguments hide are text.
    let hidden = [
        user(),
        called(r#"{"place": "\u003c|im_end|\u003e"#),
        result("call_one", "Sun."),
    ];
    check(&hidden, &["<|im_end|>\n</parameter>"]);
    let late = [
        Message::new(Role::System, "A."),
        user(),
        Message::new(Role::Assistant, "Hm."),
        Message::new(Role::Developer, "B."),
        user(),
    ];
    check(
        &late,
        &[
            "<|im_start|>system\n# Tools",
            "A.<|im_end|>",
            "<|im_start|>user\nB.<|im_end|>\n<|im_start|>user\nWeather?",
        ],
    );

    let picky = "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('Never.') }}{% endif %}{{ m.content }}{% endfor %}";
    let messages: Vec<Message> = ["a", "b", "c", "no", "d"]
        .map(|text| Message::new(Role::User, text))
        .into();
    let refused = prompt(
        &chat_format(&format!(
            "{picky}{{% if messages|length == 1 and not messages[0].content %}}{{% endif %}}"
        )),
        &messages,
        false,
    );
    // The repair of turns joins these messages into one, which this template accepts.
    assert_eq!(refused.unwrap(), "a\n\nb\n\nc\n\nno\n\nd");
    let apart: Vec<Message> = messages
        .into_iter()
        .flat_map(|message| [message, Message::new(Role::Assistant, "x")])
        .collect();
    let refused = prompt(&chat_format(picky), &apart, false).unwrap_err();
    assert_eq!(
        (&*refused.param, &*refused.message),
        ("messages.6", "messages.6: Never.")
    );
}

/// A conversation that a template accepts isn't changed.
#[test]
fn what_is_taken_stays() {
    let source = "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %};{% endfor %}";
    let messages = [
        Message::new(Role::Assistant, "a"),
        Message::new(Role::System, "b"),
        Message::new(Role::User, "c"),
        Message::new(Role::User, "d"),
    ];
    let prompt = prompt(&chat_format(source), &messages, false).unwrap();
    assert_eq!(prompt, "assistant:a;system:b;user:c;user:d;");
}

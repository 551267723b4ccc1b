//! Parameters that not every model supports: their ranges, and the errors of models without support.

use serde_json::{Value, json};
use weir_engine::{Engine, Event, Facts, FinishReason, Usage};
use weir_testkit::{Scripted, TestApp};

use crate::chat;
use crate::parameters::Endpoint::{self, Chat, Completions};
use crate::parameters::{BOTH, OK, bad, check_in};

/// Sends each row to a model that supports every feature.
async fn check_able(endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    check_in(&TestApp::scripted(&silent()).await, endpoints, rows).await;
}

/// Sends each row to a model without optional features.
async fn check_unable(endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    check_in(&TestApp::scripted(&unable()).await, endpoints, rows).await;
}

fn unable() -> Scripted {
    let able = silent();
    let facts = Facts {
        features: Vec::new(),
        ..able.facts().clone()
    };
    able.with_facts(facts)
}

/// An engine that ends its answer at once.
fn silent() -> Scripted {
    Scripted::new(vec![
        Event::Finished {
            choice: 0,
            reason: FinishReason::Stop,
        },
        Event::Done(Usage::default()),
    ])
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[tokio::test]
async fn tools() {
    let one = |given: Value| json!({"tools": [tool("f"), given]});
    let function = |function: Value| one(json!({"type": "function", "function": function}));
    let chosen = |choice: Value| json!({"tools": [tool("f")], "tool_choice": choice});
    let deep = |levels: usize| {
        let mut schema = json!({});
        for _ in 1..levels {
            schema = json!({"not": schema});
        }
        schema
    };
    let wide = |values: usize| json!({"enum": vec![0; values - 2]});
    let many = |count: usize| json!({"tools": (0..count).map(|n| tool(&format!("f{n}"))).collect::<Vec<_>>()});
    let rows = [
        (many(128), OK),
        (many(129), bad("tools")),
        (json!({"tools": {}}), bad("tools")),
        (one(json!({})), bad("tools.1.type")),
        (
            one(json!({"type": "custom", "custom": {}})),
            bad("tools.1.type"),
        ),
        (one(json!({"type": "function"})), bad("tools.1.function")),
        (function(json!({})), bad("tools.1.function.name")),
        (
            function(json!({"name": "a".repeat(64), "description": "x", "strict": true})),
            OK,
        ),
        (
            function(json!({"name": "a".repeat(65)})),
            bad("tools.1.function.name"),
        ),
        (function(json!({"name": ""})), bad("tools.1.function.name")),
        (
            function(json!({"name": "a.b"})),
            bad("tools.1.function.name"),
        ),
        (function(json!({"name": "ü"})), bad("tools.1.function.name")),
        (function(json!({"name": 5})), bad("tools.1.function.name")),
        (function(json!({"name": "f"})), bad("tools.1.function.name")),
        (function(json!({"name": "g", "parameters": {}})), OK),
        (function(json!({"name": "g", "parameters": null})), OK),
        (
            function(json!({"name": "g", "parameters": []})),
            bad("tools.1.function.parameters"),
        ),
        (
            function(json!({"name": "g", "parameters": "x"})),
            bad("tools.1.function.parameters"),
        ),
        (
            function(json!({"name": "g", "strict": "yes"})),
            bad("tools.1.function.strict"),
        ),
        (function(json!({"name": "g", "parameters": deep(64)})), OK),
        (
            function(json!({"name": "g", "parameters": deep(65)})),
            bad("tools.1.function.parameters"),
        ),
        (function(json!({"name": "g", "parameters": wide(8192)})), OK),
        (
            function(json!({"name": "g", "parameters": wide(8193)})),
            bad("tools.1.function.parameters"),
        ),
        (
            function(json!({"name": "g", "parameters": {"a": "x".repeat(524_287)}})),
            OK,
        ),
        (
            function(json!({"name": "g", "parameters": {"a": "x".repeat(524_288)}})),
            bad("tools.1.function.parameters"),
        ),
        (chosen(json!("none")), OK),
        (chosen(json!("auto")), OK),
        (chosen(json!("required")), OK),
        (
            chosen(json!({"type": "function", "function": {"name": "f"}})),
            OK,
        ),
        (
            chosen(json!({"type": "function", "function": {"name": "g"}})),
            bad("tool_choice"),
        ),
        (
            chosen(json!({"type": "function"})),
            bad("tool_choice.function.name"),
        ),
        (
            chosen(json!({"type": "allowed_tools", "allowed_tools": {}})),
            bad("tool_choice.type"),
        ),
        (chosen(json!("maybe")), bad("tool_choice")),
        (json!({"tool_choice": "required"}), bad("tool_choice")),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            bad("tool_choice"),
        ),
        (json!({"parallel_tool_calls": false}), OK),
        (
            json!({"parallel_tool_calls": 1}),
            bad("parallel_tool_calls"),
        ),
        (json!({"functions": [{"name": "f"}]}), bad("functions")),
        (
            json!({"function_call": {"name": "f"}}),
            bad("function_call"),
        ),
    ];
    check_able(&[Chat], &rows).await;
}

#[tokio::test]
async fn response_format() {
    let schema = |described: Value| json!({"response_format": {"type": "json_schema", "json_schema": described}});
    let rows = [
        (json!({"response_format": {"type": "text"}}), OK),
        (json!({"response_format": {"type": "json_object"}}), OK),
        (
            json!({"response_format": {"type": "yaml"}}),
            bad("response_format.type"),
        ),
        (json!({"response_format": {}}), bad("response_format.type")),
        (json!({"response_format": "json"}), bad("response_format")),
        (schema(json!({"name": "a", "schema": {}})), OK),
        (
            schema(
                json!({"name": "a".repeat(64), "schema": {}, "strict": true, "description": "x"}),
            ),
            OK,
        ),
        (
            schema(json!({"name": "a".repeat(65), "schema": {}})),
            bad("response_format.json_schema.name"),
        ),
        (
            schema(json!({"name": "a b", "schema": {}})),
            bad("response_format.json_schema.name"),
        ),
        (
            schema(json!({"schema": {}})),
            bad("response_format.json_schema.name"),
        ),
        (
            schema(json!({"name": "a"})),
            bad("response_format.json_schema.schema"),
        ),
        (
            schema(json!({"name": "a", "schema": true})),
            bad("response_format.json_schema.schema"),
        ),
        (schema(Value::Null), bad("response_format.json_schema.name")),
    ];
    check_able(BOTH, &rows).await;
}

/// vLLM's fields are supported, empty values have no effect, and other servers' fields are refused.
#[tokio::test]
async fn structured_outputs() {
    let outputs = |field: &str, value: Value| json!({"structured_outputs": {field: value}});
    let mut rows = vec![
        (json!({"structured_outputs": {}}), OK),
        (json!({"structured_outputs": null}), OK),
        (outputs("json", json!({"type": "object"})), OK),
        (outputs("json", json!("{}")), OK),
        (outputs("json", json!(3)), bad("structured_outputs.json")),
        (outputs("regex", json!("a+")), OK),
        (outputs("choice", json!(["a", "b"])), OK),
        (
            outputs("choice", json!([])),
            bad("structured_outputs.choice"),
        ),
        (
            outputs("choice", json!([""])),
            bad("structured_outputs.choice"),
        ),
        (outputs("grammar", json!("root ::= \"a\"")), OK),
        (outputs("json_object", json!(true)), OK),
        (outputs("json_object", json!(false)), OK),
        (
            outputs("structural_tag", json!({"a": 1})),
            bad("structured_outputs.structural_tag"),
        ),
        (outputs("structural_tag", Value::Null), OK),
        (
            outputs("whitespace_pattern", json!(" ")),
            bad("structured_outputs.whitespace_pattern"),
        ),
        (
            outputs("disable_any_whitespace", json!(true)),
            bad("structured_outputs.disable_any_whitespace"),
        ),
        (outputs("disable_any_whitespace", json!(false)), OK),
        (outputs("disable_fallback", json!(true)), OK),
        (
            json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
            bad("structured_outputs"),
        ),
        (json!({"guided_json": {}}), OK),
        (json!({"guided_regex": "a"}), OK),
        (json!({"guided_choice": ["a"]}), OK),
        (json!({"guided_grammar": "start: \"a\""}), OK),
        (
            json!({"guided_regex": "a", "guided_choice": ["a"]}),
            bad("guided_choice"),
        ),
        (
            json!({"guided_regex": "a", "response_format": {"type": "json_object"}}),
            bad("guided_regex"),
        ),
        (
            json!({"guided_regex": "a", "response_format": {"type": "text"}}),
            OK,
        ),
        (json!({"guided_decoding_backend": "xgrammar"}), OK),
        (
            json!({"response_format": {"type": "json_object", "schema": {"type": "object"}}}),
            OK,
        ),
        (
            json!({"response_format": {"type": "json_schema", "schema": {"type": "object"}}}),
            OK,
        ),
        (
            json!({"response_format": {"type": "regex", "value": {}}}),
            bad("response_format.type"),
        ),
        (
            json!({"response_format": {"type": "structural_tag"}}),
            bad("response_format.type"),
        ),
    ];
    for field in [
        "grammar",
        "regex",
        "ebnf",
        "json_schema",
        "structural_tag",
        "format",
        "guided_whitespace_pattern",
    ] {
        rows.push((json!({field: "x"}), bad(field)));
        rows.push((json!({field: {"a": 1}}), bad(field)));
        for empty in [Value::Null, json!(""), json!({}), json!([]), json!(false)] {
            rows.push((json!({field: empty}), OK));
        }
    }
    check_able(BOTH, &rows).await;
}

#[tokio::test]
async fn reasoning() {
    let kwargs = |kwargs: Value| json!({"chat_template_kwargs": kwargs});
    let entries = |count: u32| {
        (0..count)
            .map(|n| (n.to_string(), json!(n)))
            .collect::<Value>()
    };
    let rows = [
        (json!({"separate_reasoning": true}), OK),
        (
            json!({"separate_reasoning": "yes"}),
            bad("separate_reasoning"),
        ),
        (json!({"enable_thinking": false}), OK),
        (json!({"enable_thinking": 1}), bad("enable_thinking")),
        (
            json!({"enable_thinking": false, "chat_template_kwargs": {"enable_thinking": false}}),
            OK,
        ),
        (
            json!({"enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false}}),
            bad("enable_thinking"),
        ),
        (json!({"reasoning_effort": "xhigh"}), OK),
        (json!({"reasoning_effort": "huge"}), bad("reasoning_effort")),
        (
            kwargs(json!({"a": 1, "b": 1.5, "c": "x", "d": null, "e": true})),
            OK,
        ),
        (kwargs(json!({"a": []})), bad("chat_template_kwargs.a")),
        (kwargs(json!({"a": {}})), bad("chat_template_kwargs.a")),
        (kwargs(json!({"a": "x".repeat(1024)})), OK),
        (
            kwargs(json!({"a": "x".repeat(1025)})),
            bad("chat_template_kwargs.a"),
        ),
        (kwargs(entries(32)), OK),
        (kwargs(entries(33)), bad("chat_template_kwargs")),
        (kwargs(json!([])), bad("chat_template_kwargs")),
    ];
    check_able(&[Chat], &rows).await;
}

/// A value out of range is refused as such even if the feature isn't supported; a valid value is refused by the
/// feature's name.
#[tokio::test]
async fn not_supported_in_chats() {
    let rows = [
        (json!({"tools": []}), OK),
        (json!({"tools": null, "tool_choice": "auto"}), OK),
        (json!({"tool_choice": "none"}), OK),
        (json!({"tools": [tool("f")]}), bad("tools")),
        (
            json!({"tools": [tool("f")], "tool_choice": "none"}),
            bad("tools"),
        ),
        (json!({"tools": [{"type": "x"}]}), bad("tools.0.type")),
        (json!({"response_format": {"type": "text"}}), OK),
        (
            json!({"response_format": {"type": "json_object"}}),
            bad("response_format"),
        ),
        (json!({"enable_thinking": true}), OK),
        (json!({"reasoning_effort": "none"}), OK),
        (json!({"reasoning_effort": "high"}), bad("reasoning_effort")),
        (json!({"modalities": ["text"]}), OK),
        (json!({"modalities": ["text", "audio"]}), bad("modalities")),
        (json!({"audio": {"voice": "x"}}), bad("audio")),
        (json!({"web_search_options": {}}), bad("web_search_options")),
    ];
    check_unable(&[Chat], &rows).await;
}

#[tokio::test]
async fn not_supported_in_completions() {
    let rows = [
        (
            json!({"response_format": {"type": "json_object"}}),
            bad("response_format"),
        ),
        (json!({"suffix": ""}), OK),
        (json!({"suffix": "x"}), bad("suffix")),
        (json!({"suffix": 5}), bad("suffix")),
    ];
    check_unable(&[Completions], &rows).await;
}

#[tokio::test]
async fn features_are_named() {
    let app = TestApp::scripted(&unable()).await;
    let message = async |app: &TestApp, body: String| {
        app.post("/v1/chat/completions", body).await.json()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let rows = [
        (json!({"tools": [tool("f")]}), "function-calling"),
        (
            json!({"response_format": {"type": "json_object"}}),
            "structured-outputs",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "image-input",
        ),
    ];
    for (fields, feature) in rows {
        let message = message(&app, chat(fields)).await;
        assert_eq!(
            message,
            format!("model: sim/chat does not support feature: {feature}")
        );
    }
    let no_chat = message(&TestApp::new().await, chat(json!({"model": "sim/plain"}))).await;
    assert_eq!(no_chat, "model: sim/plain does not support feature: chat");
}

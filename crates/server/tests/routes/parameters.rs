//! Every range of the contract's parameter table, both sides, and what a wrong value is called.

use serde_json::{Value, json};
use weir_engine::{Engine, Event, Facts, FinishReason, Usage};
use weir_testkit::{Scripted, TestApp};

use crate::{chat, completion};

#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Chat,
    Completions,
}
use Endpoint::{Chat, Completions};

const BOTH: &[Endpoint] = &[Chat, Completions];
/// The request is answered.
const OK: Option<&str> = None;

/// Sends a request with each row's fields: it is answered, or refused with the name of the field.
async fn check(endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    check_in(&TestApp::new().await, endpoints, rows).await;
}

/// The same for a model that can do everything.
async fn check_able(endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    check_in(&TestApp::scripted(&silent()).await, endpoints, rows).await;
}

/// The same for a model that can do nothing special.
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

/// An engine that ends at once.
fn silent() -> Scripted {
    Scripted::new(vec![
        Event::Finished {
            choice: 0,
            reason: FinishReason::Stop,
        },
        Event::Done(Usage::default()),
    ])
}

async fn check_in(app: &TestApp, endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    for endpoint in endpoints {
        for (fields, refused) in rows {
            let answer = match endpoint {
                Chat => app.post("/v1/chat/completions", chat(fields.clone())).await,
                Completions => {
                    app.post("/v1/completions", completion(fields.clone()))
                        .await
                }
            };
            let what = format!(
                "{endpoint:?} {:.200} gave {:.500}",
                fields.to_string(),
                answer.text()
            );
            match refused {
                None => assert_eq!(answer.status, 200, "{what}"),
                Some(param) => {
                    let json = answer.json();
                    assert_eq!(answer.status, 400, "{what}");
                    assert_eq!(json["reason"], "INVALID_REQUEST_BODY", "{what}");
                    assert_eq!(json["error"]["param"], *param, "{what}");
                    // The message helps without `param`, too.
                    let field = param
                        .rsplit('.')
                        .find(|part| part.parse::<u32>().is_err())
                        .unwrap();
                    assert!(
                        json["message"].as_str().unwrap().contains(field)
                            || json["error"]["code"] != Value::Null,
                        "{what}"
                    );
                }
            }
        }
    }
}

fn bad(param: &str) -> Option<&str> {
    Some(param)
}

#[tokio::test]
async fn sampling() {
    let in_range = |name: &str, good: &[Value], wrong: &[Value]| {
        let row = |value: &Value, refused: Option<&'static str>| (json!({name: value}), refused);
        let name: &'static str = name.to_owned().leak();
        let good = good.iter().map(|value| row(value, OK));
        let types = [json!("1"), json!(true), json!([]), json!({})];
        let wrong = wrong
            .iter()
            .chain(&types)
            .map(|value| row(value, bad(name)));
        good.chain([row(&Value::Null, OK)])
            .chain(wrong)
            .collect::<Vec<_>>()
    };
    let j = |numbers: &[f64]| {
        numbers
            .iter()
            .map(|&number| json!(number))
            .collect::<Vec<_>>()
    };
    let i = |numbers: &[i64]| {
        numbers
            .iter()
            .map(|&number| json!(number))
            .collect::<Vec<_>>()
    };
    let rows = [
        in_range(
            "temperature",
            &j(&[0.0, 2.0, 1e-300]),
            &j(&[-0.01, 2.01, 1e300]),
        ),
        in_range("top_p", &j(&[1e-9, 1.0]), &j(&[0.0, -0.1, 1.01])),
        in_range("min_p", &j(&[0.0, 1.0]), &j(&[-0.01, 1.01])),
        in_range("presence_penalty", &j(&[-2.0, 2.0]), &j(&[-2.01, 2.01])),
        in_range("frequency_penalty", &j(&[-2.0, 2.0]), &j(&[-2.01, 2.01])),
        in_range(
            "repetition_penalty",
            &j(&[1e-6, 2.0]),
            &j(&[0.0, -1.0, 2.01]),
        ),
        in_range("top_k", &i(&[-1, 0, 1, i64::MAX]), &i(&[-2, i64::MIN])),
        in_range("top_k", &j(&[5.0]), &j(&[5.5])),
        in_range("seed", &i(&[i64::MIN, -1, 0, i64::MAX]), &[]),
        in_range(
            "seed",
            &[],
            &[
                json!(1.5),
                json!(9_223_372_036_854_775_808_u64),
                json!(1e300),
            ],
        ),
        in_range("n", &i(&[1, 128]), &i(&[0, -1, 129, i64::MAX])),
    ];
    check(BOTH, &rows.concat()).await;
}

#[tokio::test]
async fn stop() {
    let rows = [
        (json!({"stop": "x"}), OK),
        (json!({"stop": ["a", "b", "c", "d"]}), OK),
        (json!({"stop": []}), OK),
        (json!({"stop": null}), OK),
        (json!({"stop": ""}), bad("stop")),
        (json!({"stop": ["a", ""]}), bad("stop")),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), bad("stop")),
        (json!({"stop": 5}), bad("stop")),
        (json!({"stop": ["a", 5]}), bad("stop.1")),
    ];
    check(BOTH, &rows).await;
}

#[tokio::test]
async fn logit_bias() {
    let entries = |count: u32| {
        (0..count)
            .map(|token| (token.to_string(), json!(0)))
            .collect::<Value>()
    };
    let rows = [
        (json!({"logit_bias": {}}), OK),
        (
            json!({"logit_bias": {"5": 100, "6": -100, "7": 0.5, "8": "1.5", "9": "-3"}}),
            OK,
        ),
        (json!({"logit_bias": {"5": 100.1}}), bad("logit_bias")),
        (json!({"logit_bias": {"5": -100.1}}), bad("logit_bias")),
        (json!({"logit_bias": {"5": "x"}}), bad("logit_bias.5")),
        (json!({"logit_bias": {"5": null}}), bad("logit_bias.5")),
        (json!({"logit_bias": {"x": 1}}), bad("logit_bias")),
        (json!({"logit_bias": {"-1": 1}}), bad("logit_bias")),
        (json!({"logit_bias": {"4294967296": 1}}), bad("logit_bias")),
        (json!({"logit_bias": {"5": 1, "05": 1}}), bad("logit_bias")),
        (json!({"logit_bias": {"999999": 1}}), bad("logit_bias")),
        (json!({"logit_bias": entries(1025)}), bad("logit_bias")),
        (json!({"logit_bias": entries(5000)}), bad("logit_bias")),
        (json!({"logit_bias": [1]}), bad("logit_bias")),
    ];
    check(BOTH, &rows).await;
}

#[tokio::test]
async fn streaming() {
    let rows = [
        (json!({"stream": false}), OK),
        (json!({"stream": true}), OK),
        (json!({"stream": true, "stream_options": {}}), OK),
        (
            json!({"stream": true, "stream_options": {"include_usage": true, "unknown": 1}}),
            OK,
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": null}}),
            OK,
        ),
        (json!({"stream_options": null}), OK),
        (json!({"stream": "true"}), bad("stream")),
        (json!({"stream": 1}), bad("stream")),
        (
            json!({"stream_options": {"include_usage": true}}),
            bad("stream_options"),
        ),
        (
            json!({"stream": false, "stream_options": {"include_usage": true}}),
            bad("stream_options"),
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            bad("stream_options.include_usage"),
        ),
        (
            json!({"stream": true, "stream_options": 1}),
            bad("stream_options"),
        ),
    ];
    check(BOTH, &rows).await;
}

#[tokio::test]
async fn max_tokens() {
    let both = [
        (json!({"max_tokens": 1}), OK),
        (json!({"max_tokens": 1.0}), OK),
        (json!({"max_tokens": 1024}), OK),
        (json!({"max_tokens": null, "max_completion_tokens": 1}), OK),
        (json!({"max_tokens": 1, "max_completion_tokens": 1}), OK),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            bad("max_tokens"),
        ),
        (json!({"max_tokens": 1025}), bad("max_tokens")),
        (json!({"max_tokens": i64::MAX}), bad("max_tokens")),
        (
            json!({"max_tokens": null, "max_completion_tokens": 1025}),
            bad("max_completion_tokens"),
        ),
        (json!({"max_tokens": -1}), bad("max_tokens")),
        (
            json!({"max_tokens": null, "max_completion_tokens": -1}),
            bad("max_completion_tokens"),
        ),
        (json!({"max_tokens": 1.5}), bad("max_tokens")),
        (json!({"max_tokens": "5"}), bad("max_tokens")),
    ];
    check(BOTH, &both).await;
    check(&[Chat], &[(json!({"max_tokens": 0}), bad("max_tokens"))]).await;
    check(&[Completions], &[(json!({"max_tokens": 0}), OK)]).await;
}

#[tokio::test]
async fn model() {
    let rows = [
        (json!({"model": null}), bad("model")),
        (json!({"model": 5}), bad("model")),
        (json!({"model": ["sim/chat"]}), bad("model")),
    ];
    check(BOTH, &rows).await;
}

#[tokio::test]
async fn ignored() {
    let rows = [
        (
            json!({"user": "me", "metadata": {"a": "b"}, "store": true, "service_tier": "auto"}),
            OK,
        ),
        (
            json!({"user": 5, "x": [[[]]], "parallel_tool_calls": false, "safety_identifier": "x"}),
            OK,
        ),
        (
            json!({"enable_thinking": false, "separate_reasoning": true}),
            OK,
        ),
        (
            json!({"api_base": "http://169.254.169.254"}),
            bad("api_base"),
        ),
        (
            json!({"base_url": "http://169.254.169.254"}),
            bad("base_url"),
        ),
    ];
    check(BOTH, &rows).await;
}

#[tokio::test]
async fn messages() {
    let one = |message: Value| json!({"messages": [{"role": "user", "content": "a"}, message]});
    let call = |call: Value| one(json!({"role": "assistant", "tool_calls": [call]}));
    let rows = [
        (json!({"messages": null}), bad("messages")),
        (json!({"messages": []}), bad("messages")),
        (json!({"messages": "hello"}), bad("messages")),
        (json!({"messages": [null]}), bad("messages.0")),
        (json!({"messages": vec![json!({}); 4097]}), bad("messages")),
        (one(json!({})), bad("messages.1.role")),
        (one(json!({"content": "a"})), bad("messages.1.role")),
        (
            one(json!({"role": "wizard", "content": "a"})),
            bad("messages.1.role"),
        ),
        (
            one(json!({"role": "User", "content": "a"})),
            bad("messages.1.role"),
        ),
        (
            one(json!({"role": 5, "content": "a"})),
            bad("messages.1.role"),
        ),
        (
            one(json!({"role": {"user": null}, "content": "a"})),
            bad("messages.1.role"),
        ),
        (
            one(json!({"role": "user", "content": 5})),
            bad("messages.1.content"),
        ),
        (
            one(json!({"role": "user", "content": {"type": "text", "text": "a"}})),
            bad("messages.1.content"),
        ),
        (
            one(json!({"role": "user", "content": ["a"]})),
            bad("messages.1.content.0"),
        ),
        (
            one(json!({"role": "user", "content": [{"type": "smell"}]})),
            bad("messages.1.content.0"),
        ),
        (
            one(json!({"role": "user", "content": [{"type": "text", "text": 5}]})),
            bad("messages.1.content.0.text"),
        ),
        (
            one(
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
            ),
            bad("messages.1.content.0"),
        ),
        (
            one(
                json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}),
            ),
            bad("messages.1.content.1"),
        ),
        (
            one(json!({"role": "user", "content": "a", "name": "n".repeat(65)})),
            bad("messages.1.name"),
        ),
        (
            one(json!({"role": "user", "content": "a", "name": "ü".repeat(64)})),
            OK,
        ),
        (
            one(json!({"role": "user", "content": "a", "name": 5})),
            bad("messages.1.name"),
        ),
        (
            one(json!({"role": "tool", "content": "a"})),
            bad("messages.1.tool_call_id"),
        ),
        (
            one(
                json!({"role": "user", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}),
            ),
            bad("messages.1.tool_calls"),
        ),
        (call(json!({"id": "a"})), bad("messages.1.tool_calls.0")),
        (
            call(json!({"id": "a", "type": "x", "function": {"name": "f", "arguments": ""}})),
            bad("messages.1.tool_calls.0"),
        ),
        (
            call(json!({"id": "a", "function": {"name": "f", "arguments": {}}})),
            bad("messages.1.tool_calls.0.function.arguments"),
        ),
    ];
    check(&[Chat], &rows).await;
}

#[tokio::test]
async fn prompt() {
    let rows = [
        (json!({"prompt": null}), bad("prompt")),
        (json!({"prompt": []}), bad("prompt")),
        (json!({"prompt": [[]]}), bad("prompt")),
        (json!({"prompt": [[65], []]}), bad("prompt")),
        (json!({"prompt": 5}), bad("prompt")),
        (json!({"prompt": {}}), bad("prompt")),
        (json!({"prompt": [null]}), bad("prompt.0")),
        (json!({"prompt": [65, "a"]}), bad("prompt.1")),
        (json!({"prompt": ["a", 65]}), bad("prompt.1")),
        (json!({"prompt": [[65], [66, "a"]]}), bad("prompt.1.1")),
        (json!({"prompt": [65, -1]}), bad("prompt.1")),
        (json!({"prompt": [999_999]}), bad("prompt")),
        (json!({"prompt": [[65], [999_999]]}), bad("prompt")),
        (json!({"prompt": vec!["a"; 1025]}), bad("prompt")),
        (json!({"prompt": vec!["a"; 17], "n": 128}), bad("n")),
    ];
    check(&[Completions], &rows).await;
}

#[tokio::test]
async fn logprobs() {
    let chat = [
        (json!({"logprobs": false, "top_logprobs": 0}), OK),
        (json!({"logprobs": null, "top_logprobs": null}), OK),
        (json!({"logprobs": true}), OK),
        (json!({"logprobs": true, "top_logprobs": 0}), OK),
        (json!({"logprobs": true, "top_logprobs": 20}), OK),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            bad("top_logprobs"),
        ),
        (
            json!({"logprobs": true, "top_logprobs": -1}),
            bad("top_logprobs"),
        ),
        (
            json!({"logprobs": false, "top_logprobs": 21}),
            bad("top_logprobs"),
        ),
        (json!({"top_logprobs": 1}), bad("top_logprobs")),
        (json!({"logprobs": 1}), bad("logprobs")),
        (
            json!({"logprobs": true, "top_logprobs": 1.5}),
            bad("top_logprobs"),
        ),
    ];
    check(&[Chat], &chat).await;
    let completions = [
        (json!({"logprobs": null}), OK),
        (json!({"logprobs": 0}), OK),
        (
            json!({"logprobs": 5, "return_tokens_as_token_ids": true}),
            OK,
        ),
        (json!({"logprobs": 6}), bad("logprobs")),
        (json!({"logprobs": -1}), bad("logprobs")),
        (json!({"logprobs": true}), bad("logprobs")),
        (
            json!({"return_tokens_as_token_ids": 1}),
            bad("return_tokens_as_token_ids"),
        ),
    ];
    check(&[Completions], &completions).await;
}

#[tokio::test]
async fn echo_and_best_of() {
    let rows = [
        (json!({"echo": false}), OK),
        (json!({"echo": true}), OK),
        (json!({"echo": true, "max_tokens": 0, "logprobs": 5}), OK),
        (json!({"echo": true, "stream": true}), OK),
        (json!({"echo": "yes"}), bad("echo")),
        (json!({"best_of": null}), OK),
        (json!({"best_of": 1}), OK),
        (json!({"best_of": 20}), OK),
        (json!({"best_of": 20, "n": 20}), OK),
        (
            json!({"best_of": 20, "n": 3, "logprobs": 2, "echo": true}),
            OK,
        ),
        (json!({"best_of": 21}), bad("best_of")),
        (json!({"best_of": 21, "n": 21}), bad("best_of")),
        (json!({"best_of": 1, "n": 2}), bad("best_of")),
        (json!({"best_of": 0}), bad("best_of")),
        (json!({"best_of": 1, "stream": true}), bad("best_of")),
        (json!({"best_of": 20, "prompt": vec!["a"; 103]}), bad("n")),
    ];
    check(&[Completions], &rows).await;
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
    // Of a path only so much is shown.
    let too_deep = format!("tools.1.function.parameters{}", ".not".repeat(64));
    let too_deep = too_deep.chars().take(200).collect::<String>();
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
            bad(&too_deep),
        ),
        (function(json!({"name": "g", "parameters": wide(8192)})), OK),
        (
            function(json!({"name": "g", "parameters": wide(8193)})),
            bad("tools.1.function.parameters.enum.8190"),
        ),
        (
            function(json!({"name": "g", "parameters": {"a": "x".repeat(262_143)}})),
            OK,
        ),
        (
            function(json!({"name": "g", "parameters": {"a": "x".repeat(262_144)}})),
            bad("tools.1.function.parameters.a"),
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

/// Ranges hold for what isn't supported yet, too; in range it is refused by the feature's name.
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

/// What is refused costs nothing.
#[tokio::test]
async fn nothing_is_charged_for_a_refusal() {
    let app = TestApp::new().await;
    let before = app.accounts.account("test").await.unwrap();
    for fields in [
        json!({"temperature": 3}),
        json!({"model": "foo"}),
        json!({"model": "sim/down"}),
        json!({"audio": {"voice": "x"}}),
    ] {
        let answer = app.post("/v1/chat/completions", chat(fields)).await;
        assert_ne!(answer.status, 200);
    }
    app.app.gateway.settled().await;
    let after = app.accounts.account("test").await.unwrap();
    assert_eq!((before.posted, before.held), (after.posted, after.held));
}

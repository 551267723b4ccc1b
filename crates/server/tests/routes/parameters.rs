//! Both ends of the range of every parameter, and the errors for wrong values.

use serde_json::{Value, json};
use weir_testkit::TestApp;

use crate::{chat, completion};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
}
use Endpoint::{Chat, Completions};

pub(crate) const BOTH: &[Endpoint] = &[Chat, Completions];
/// The request is answered.
pub(crate) const OK: Option<&str> = None;

/// Sends a request with each row's fields, which has to be answered, or refused with the name of the field.
async fn check(endpoints: &[Endpoint], rows: &[(Value, Option<&str>)]) {
    check_in(&TestApp::new().await, endpoints, rows).await;
}

/// Does the same as `check` with a given app.
pub(crate) async fn check_in(
    app: &TestApp,
    endpoints: &[Endpoint],
    rows: &[(Value, Option<&str>)],
) {
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
                    // The message names the field as well, for clients that don't show `param`.
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

pub(crate) fn bad(param: &str) -> Option<&str> {
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
        (one(json!({"role": "user"})), bad("messages.1.content")),
        (
            one(json!({"role": "user", "content": null})),
            bad("messages.1.content"),
        ),
        (
            one(json!({"role": "system", "content": null})),
            bad("messages.1.content"),
        ),
        (one(json!({"role": "developer"})), bad("messages.1.content")),
        (
            one(json!({"role": "tool", "tool_call_id": "a"})),
            bad("messages.1.content"),
        ),
        (one(json!({"role": "assistant"})), bad("messages.1.content")),
        (
            one(json!({"role": "assistant", "content": null, "tool_calls": []})),
            bad("messages.1.content"),
        ),
        (
            one(json!({"role": "user", "refusal": "no"})),
            bad("messages.1.content"),
        ),
        (one(json!({"role": "user", "content": ""})), OK),
        (one(json!({"role": "assistant", "refusal": "no"})), OK),
        (
            one(json!({"role": "assistant", "content": null, "reasoning_content": "hm"})),
            OK,
        ),
        (
            call(json!({"id": "a", "function": {"name": "f", "arguments": ""}})),
            OK,
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

/// A refused request costs nothing.
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

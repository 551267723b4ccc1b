//! Streamed answers: contract, "Streaming", rules 1 to 5 and 7 to 9.

use std::collections::BTreeMap;

use http::Method;
use http_body_util::BodyExt;
use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_inference::sim::{Faults, SimModel, SimOptions};
use weir_testkit::{Setup, TestApp, offer};

use crate::{chat, completion, lines};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn a_chat() {
    let app = TestApp::new().await;
    let answer = app
        .post(CHAT, chat(json!({"stream": true, "max_tokens": 3})))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_snapshot!(lines(answer.frames()), @r#"
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…"}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"content":" weir"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…"}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"content":" the"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…"}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"content":" runs"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…"}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"system_fingerprint":"fp_…"}
    null
    "#);
}

#[tokio::test]
async fn a_chat_with_usage() {
    let app = TestApp::new().await;
    let body =
        chat(json!({"stream": true, "max_tokens": 2, "stream_options": {"include_usage": true}}));
    assert_snapshot!(lines(app.post(CHAT, body).await.frames()), @r#"
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…","usage":null}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"content":" weir"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…","usage":null}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{"content":" the"},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…","usage":null}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"system_fingerprint":"fp_…","usage":null}
    {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795348800,"model":"sim/chat","choices":[],"system_fingerprint":"fp_…","usage":{"prompt_tokens":27,"completion_tokens":2,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}
    null
    "#);
}

#[tokio::test]
async fn a_completion_with_usage() {
    let app = TestApp::new().await;
    let body = completion(
        json!({"stream": true, "max_tokens": 2, "stream_options": {"include_usage": true}}),
    );
    assert_snapshot!(lines(app.post(COMPLETIONS, body).await.frames()), @r#"
    {"id":"cmpl-…","object":"text_completion","created":1795348800,"model":"sim/plain","choices":[{"text":" water","index":0,"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…","usage":null}
    {"id":"cmpl-…","object":"text_completion","created":1795348800,"model":"sim/plain","choices":[{"text":" the","index":0,"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_…","usage":null}
    {"id":"cmpl-…","object":"text_completion","created":1795348800,"model":"sim/plain","choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"system_fingerprint":"fp_…","usage":null}
    {"id":"cmpl-…","object":"text_completion","created":1795348800,"model":"sim/plain","choices":[],"system_fingerprint":"fp_…","usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}
    null
    "#);
}

/// The rules that hold for every stream.
#[tokio::test]
async fn every_stream_adds_up_to_the_regular_answer() {
    let rows = [
        (CHAT, chat as fn(Value) -> String, json!({})),
        (CHAT, chat, json!({"n": 5, "max_tokens": 40})),
        (CHAT, chat, json!({"temperature": 0, "stop": ["a", "e"]})),
        (CHAT, chat, json!({"max_tokens": 1, "n": 2})),
        (CHAT, chat, json!({"max_tokens": null})),
        (COMPLETIONS, completion, json!({})),
        (
            COMPLETIONS,
            completion,
            json!({"prompt": ["a", "b"], "n": 3, "max_tokens": 40}),
        ),
        (
            COMPLETIONS,
            completion,
            json!({"max_tokens": 0, "prompt": ["a", "b"]}),
        ),
    ];
    let app = TestApp::new().await;
    for (path, body, fields) in rows {
        let regular = app.post(path, body(fields.clone())).await;
        assert_eq!(regular.status, 200, "{fields}: {}", regular.text());
        for usage in [false, true] {
            let mut streamed = fields.clone();
            streamed["stream"] = true.into();
            streamed["stream_options"] = json!({"include_usage": usage});
            let frames = app.post(path, body(streamed)).await.frames();
            assert_eq!(
                folded(frames, usage),
                summary(&regular.json(), usage),
                "{path} {fields}"
            );
        }
    }
}

/// The text and the finish reason of each choice, and the usage.
type Summary = (BTreeMap<u64, (String, String)>, Value);

fn summary(answer: &Value, usage: bool) -> Summary {
    let of = |choice: &Value| {
        let text = choice
            .pointer("/message/content")
            .or(choice.get("text"))
            .unwrap()
            .as_str()
            .unwrap();
        (
            choice["index"].as_u64().unwrap(),
            (
                text.to_owned(),
                choice["finish_reason"].as_str().unwrap().to_owned(),
            ),
        )
    };
    let choices = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .collect();
    (
        choices,
        if usage {
            answer["usage"].clone()
        } else {
            Value::Null
        },
    )
}

/// Adds up the chunks of a stream, and checks the rules on the way.
fn folded(mut frames: Vec<Value>, usage: bool) -> Summary {
    assert_eq!(frames.pop(), Some(Value::Null), "[DONE] is last");
    let used = if usage {
        frames.pop().unwrap()
    } else {
        json!({"choices": [], "usage": null})
    };
    assert_eq!(
        used["choices"],
        json!([]),
        "the usage is in a chunk of its own"
    );
    assert_eq!(
        frames[0]["choices"][0]["index"], 0,
        "the first chunk is choice 0's"
    );
    let mut choices = BTreeMap::<u64, (String, String)>::new();
    for frame in &frames {
        assert_eq!(frame["id"], frames[0]["id"]);
        assert_eq!(frame["created"], frames[0]["created"]);
        assert_eq!(frame.get("usage"), usage.then_some(&Value::Null), "{frame}");
        let [choice] = frame["choices"].as_array().unwrap().as_slice() else {
            panic!("one choice: {frame}")
        };
        let reason = choice
            .get("finish_reason")
            .expect("finish_reason is always there");
        let index = choice["index"].as_u64().unwrap();
        let first = !choices.contains_key(&index);
        let (text, ended) = choices.entry(index).or_default();
        assert!(
            ended.is_empty(),
            "nothing comes after a choice's end: {frame}"
        );
        if let Some(delta) = choice.get("delta") {
            assert_eq!(
                delta.get("role").is_some(),
                first,
                "the role is in the first delta only: {frame}"
            );
            assert!(
                reason.is_null() || delta == &json!({}),
                "the last delta is empty: {frame}"
            );
        }
        let piece = choice
            .pointer("/delta/content")
            .or(choice.get("text"))
            .and_then(Value::as_str)
            .unwrap_or("");
        assert!(
            !piece.contains('\u{fffd}'),
            "a character was split: {frame}"
        );
        text.push_str(piece);
        ended.push_str(reason.as_str().unwrap_or(""));
    }
    (choices, used["usage"].clone())
}

/// A failure ends the stream with an error in both formats, and without `[DONE]`.
#[tokio::test]
async fn an_engine_that_fails_in_the_middle() {
    let faults = Faults {
        fault_at: Some(3),
        ..Faults::default()
    };
    let broken = || {
        SimModel::new(SimOptions {
            faults: faults.clone(),
            end_probability: 0.0,
            ..SimOptions::default()
        })
    };
    let start = async || {
        TestApp::start(Setup {
            offers: vec![offer("sim/chat", Some(broken()))],
            ..Setup::default()
        })
        .await
    };
    let app = start().await;
    let answer = app.post(CHAT, chat(json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    let frames = answer.frames();
    let error = frames.last().unwrap();
    assert_snapshot!(error, @r#"{"code":500,"reason":"INTERNAL_ERROR","message":"an internal error; the request's id is in the header x-request-id","error":{"message":"an internal error; the request's id is in the header x-request-id","type":"server_error","param":null,"code":"internal_error"}}"#);
    assert_eq!(
        frames
            .iter()
            .filter(|frame| frame.get("error").is_some())
            .count(),
        1
    );

    let answer = start().await.post(CHAT, chat(json!({}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["reason"]),
        (500, &json!("INTERNAL_ERROR"))
    );
}

/// The chunks with the roles are sent before the engine's first step. A client that hangs up frees its sequence within
/// a step, and pays for the tokens that were generated until then.
#[tokio::test]
async fn first_bytes_leave_at_once_and_a_hang_up_is_noticed() {
    let (model, gate) = SimModel::new(SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    })
    .gated();
    let probe = model.probe();
    let app = TestApp::start(Setup {
        offers: vec![offer("sim/chat", Some(model))],
        ..Setup::default()
    })
    .await;
    let before = app.accounts.account("test").await.unwrap();
    let body = chat(json!({"stream": true, "max_tokens": 1000}));
    let mut response = app.open(app.request(Method::POST, CHAT, body)).await;
    let roles = response
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert!(String::from_utf8(roles.to_vec()).unwrap().contains("role"));
    assert_eq!(probe.cells_used(), 0, "the engine has not done a step");

    gate.pass(10);
    gate.arrived(11).await;
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    gate.open();
    app.app.gateway.settled().await;
    probe.freed().await;
    assert!(probe.steps() <= 11, "{} steps", probe.steps());
    let after = app.accounts.account("test").await.unwrap();
    assert_eq!(after.held.get(), 0);
    // Each of the ten steps that the gate let pass, and the one that was running, generated at most a token.
    let prompt =
        app.post(CHAT, chat(json!({"max_tokens": 1}))).await.json()["usage"]["prompt_tokens"]
            .clone();
    let tenths = 10 * (before.posted.get() - after.posted.get()) - prompt.as_i64().unwrap() * 200;
    assert!(
        (400..=11 * 400).contains(&tenths),
        "{tenths} tenths of a nano-USD"
    );
}

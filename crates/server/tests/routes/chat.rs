//! `POST chat/completions` without streaming.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_testkit::TestApp;

use crate::{chat, without_id};

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn an_answer_has_every_key() {
    let app = TestApp::new().await;
    let answer = app.post(PATH, chat(json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_snapshot!(without_id(answer.json()), @r#"{"id":"chatcmpl-…","object":"chat.completion","created":1795348800,"model":"sim/chat","choices":[{"index":0,"message":{"role":"assistant","content":" weir the runs a weir and runs and","refusal":null},"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":27,"completion_tokens":8,"total_tokens":35,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"fp_…"}"#);
}

#[tokio::test]
async fn several_choices_differ_and_share_their_prompt() {
    let app = TestApp::new().await;
    let one = app.post(PATH, chat(json!({"n": 1}))).await.json();
    let three = app.post(PATH, chat(json!({"n": 3}))).await.json();
    let choices = three["choices"].as_array().unwrap();
    let indices: Vec<_> = choices
        .iter()
        .map(|choice| choice["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    assert_eq!(
        choices[0], one["choices"][0],
        "choice 0 is the same however many there are"
    );
    assert_eq!(
        three["usage"]["prompt_tokens"],
        one["usage"]["prompt_tokens"]
    );
}

/// The forms that a conversation may have.
#[tokio::test]
async fn conversations() {
    let call =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let rows = [
        json!([{"role": "user", "content": "a"}]),
        json!([{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, {"role": "user", "content": "c"}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
        json!([{"role": "user", "content": []}]),
        json!([{"role": "user", "content": ""}]),
        json!([{"role": "assistant", "content": null, "refusal": "no"}, {"role": "user", "content": "a"}]),
        json!([{"role": "user", "content": "a", "name": "n".repeat(64)}]),
        json!([{"role": "user", "content": "a", "name": null, "unknown": {"x": 1}}]),
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "b", "tool_call_id": "call_1"},
        ]),
        json!([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]),
    ];
    let app = TestApp::new().await;
    for messages in rows {
        let answer = app.post(PATH, chat(json!({"messages": messages}))).await;
        assert_eq!(answer.status, 200, "{messages}: {}", answer.text());
    }
}

#[tokio::test]
async fn parts_are_joined_by_line_breaks() {
    let app = TestApp::new().await;
    let content =
        |content: Value| chat(json!({"messages": [{"role": "user", "content": content}]}));
    let parts = content(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]));
    let parts = app.post(PATH, parts).await.json();
    let text = app.post(PATH, content(json!("a\nb"))).await.json();
    assert_eq!(parts["choices"], text["choices"]);
}

/// The usage is charged before the caller has the last byte: `[DONE]` means that it is settled.
#[tokio::test]
async fn what_is_used_is_what_is_charged() {
    let app = TestApp::new().await;
    for stream in [false, true] {
        let before = app.accounts.account("test").await.unwrap();
        let mut fields = json!({"n": 2, "temperature": 0, "stream": stream});
        if stream {
            fields["stream_options"] = json!({"include_usage": true});
        }
        let answer = app.post(PATH, chat(fields)).await;
        let after = app.accounts.account("test").await.unwrap();
        let usage = match stream {
            true => answer.frames().iter().rev().nth(1).unwrap()["usage"].clone(),
            false => answer.json()["usage"].clone(),
        };
        let tokens = |class: &str| usage[class].as_i64().unwrap();
        let tenths = tokens("prompt_tokens") * 200 + tokens("completion_tokens") * 400;
        assert_eq!(
            before.posted.get() - after.posted.get(),
            (tenths + 9) / 10,
            "{usage}"
        );
        assert_eq!(after.held.get(), 0);
        assert!(tokens("completion_tokens") > 0);
    }
}

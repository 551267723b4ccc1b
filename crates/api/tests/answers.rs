//! Answers as JSON, compared byte by byte.

use insta::assert_snapshot;
use weir_api::usage::StreamUsage;
use weir_api::{Usage, chat, completion};

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("an answer is JSON")
}

#[test]
fn chat_chunks() {
    let chunk = |choices: &[chat::ChunkChoice<'_>], usage| {
        json(&chat::Chunk {
            id: "chatcmpl-1",
            object: chat::Chunk::OBJECT,
            created: 5,
            model: "m",
            choices,
            system_fingerprint: "fp_1",
            usage,
            prompt_token_ids: None,
        })
    };
    let choice = |delta, finish_reason| {
        [chat::ChunkChoice {
            index: 0,
            delta,
            logprobs: None,
            finish_reason,
            token_ids: None,
        }]
    };
    let first = choice(
        chat::Delta {
            role: Some("assistant"),
            content: Some(""),
            ..chat::Delta::default()
        },
        None,
    );
    assert_snapshot!(chunk(&first, StreamUsage::Absent), @r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_1"}"#);
    let last = choice(chat::Delta::default(), Some("stop"));
    assert_snapshot!(chunk(&last, StreamUsage::Null), @r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"system_fingerprint":"fp_1","usage":null}"#);
    assert_snapshot!(chunk(&[], StreamUsage::Given(Usage::default())), @r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[],"system_fingerprint":"fp_1","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#);
}

#[test]
fn completion_chunks() {
    let choices = [completion::ChunkChoice {
        text: "a",
        index: 1,
        logprobs: None,
        finish_reason: None,
        prompt_token_ids: None,
        token_ids: None,
    }];
    let chunk = completion::Chunk {
        id: "cmpl-1",
        object: completion::answer::OBJECT,
        created: 5,
        model: "m",
        choices: &choices,
        system_fingerprint: "fp_1",
        usage: StreamUsage::Absent,
    };
    assert_snapshot!(json(&chunk), @r#"{"id":"cmpl-1","object":"text_completion","created":5,"model":"m","choices":[{"text":"a","index":1,"logprobs":null,"finish_reason":null}],"system_fingerprint":"fp_1"}"#);
}

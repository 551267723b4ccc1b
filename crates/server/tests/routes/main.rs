//! Tests of the service as its clients see it, with simulated models.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

mod admin;
mod auth;
mod billing;
mod bodies;
mod cached;
mod chat;
mod completions;
mod connections;
mod embeddings;
mod errors;
mod extensions;
mod features;
mod framing;
mod health;
mod in_flight;
mod layers;
mod limits;
mod logprobs;
mod logs;
mod models;
mod parameters;
mod paths;
mod schemas;
mod serve;
mod streams;
mod third_format;
mod tokens;
mod tools;

use serde_json::{Value, json};

/// A valid chat request, with these fields added or replaced.
fn chat(fields: Value) -> String {
    with(
        json!({"model": "sim/chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "seed": 1}),
        fields,
    )
}

/// A valid completion request, with these fields added or replaced.
fn completion(fields: Value) -> String {
    with(
        json!({"model": "sim/plain", "prompt": "hello", "max_tokens": 8, "seed": 1}),
        fields,
    )
}

fn with(mut body: Value, fields: Value) -> String {
    let Value::Object(fields) = fields else {
        panic!("fields are an object")
    };
    for (field, value) in fields {
        body[field] = value;
    }
    body.to_string()
}

/// Replaces the values of an answer or a frame that differ between runs, after a check of their format: the id and the
/// fingerprint.
fn without_id(mut answer: Value) -> Value {
    if let Some(id) = answer.get("id").and_then(Value::as_str) {
        let (prefix, random) = id.split_once('-').expect("an id has a prefix");
        assert!(
            random.len() == 32 && random.chars().all(|digit| digit.is_ascii_hexdigit()),
            "{id}"
        );
        answer["id"] = format!("{prefix}-…").into();
    }
    if let Some(fingerprint) = answer.get("system_fingerprint") {
        let digits = fingerprint
            .as_str()
            .and_then(|text| text.strip_prefix("fp_"));
        let digits = digits.expect("a fingerprint is a text, and has a prefix");
        assert!(
            digits.len() == 10 && digits.chars().all(|digit| digit.is_ascii_hexdigit()),
            "{fingerprint}"
        );
        answer["system_fingerprint"] = "fp_…".into();
    }
    answer
}

/// A line of JSON for each frame, without ids.
fn lines(frames: Vec<Value>) -> String {
    let ids: std::collections::HashSet<_> = frames
        .iter()
        .filter_map(|frame| frame.get("id").cloned())
        .collect();
    assert!(ids.len() <= 1, "a stream has one id: {ids:?}");
    frames
        .into_iter()
        .map(|frame| without_id(frame).to_string() + "\n")
        .collect()
}

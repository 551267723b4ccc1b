//! `POST completions` without streaming.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_testkit::TestApp;

use crate::{completion, without_id};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn an_answer_has_every_key() {
    let app = TestApp::new().await;
    let answer = app.post(PATH, completion(json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_snapshot!(without_id(answer.json()), @r#"{"id":"cmpl-…","object":"text_completion","created":1795348800,"model":"sim/plain","choices":[{"text":" water the slow underü runs","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":6,"completion_tokens":8,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"system_fingerprint":"fp_…"}"#);
}

/// The four forms of a prompt; each prompt has `n` choices, with index = prompt · n + choice.
#[tokio::test]
async fn prompts() {
    let rows = [
        (json!("a"), 1),
        (json!(["a", "b", "c"]), 3),
        (json!([65, 66]), 1),
        (json!([[65], [66, 67]]), 2),
    ];
    let app = TestApp::new().await;
    for (prompt, prompts) in rows {
        for n in [1, 2] {
            let answer = app
                .post(PATH, completion(json!({"prompt": prompt, "n": n})))
                .await;
            assert_eq!(answer.status, 200, "{prompt}: {}", answer.text());
            let answer = answer.json();
            let indices: Vec<_> = answer["choices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["index"].clone())
                .collect();
            let expected: Vec<Value> = (0..prompts * n).map(Value::from).collect();
            assert_eq!(indices, expected, "{prompt}");
        }
    }
}

#[tokio::test]
async fn a_choice_is_as_if_its_prompt_were_alone() {
    let app = TestApp::new().await;
    let texts = async |prompt: Value| {
        let answer = app
            .post(
                PATH,
                completion(json!({"prompt": prompt, "temperature": 0})),
            )
            .await
            .json();
        let texts = answer["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["text"].clone());
        texts.collect::<Vec<_>>()
    };
    let together = texts(json!(["one", "another"])).await;
    assert_eq!(
        together,
        [texts(json!("one")).await, texts(json!("another")).await].concat()
    );
}

#[tokio::test]
async fn the_default_is_sixteen_tokens() {
    let app = TestApp::new().await;
    let answer = app
        .post(
            PATH,
            completion(json!({"max_tokens": null, "logit_bias": {"0": -100}})),
        )
        .await
        .json();
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 16);
    let rows = [(0, 0), (1, 1)];
    for (max_tokens, tokens) in rows {
        let answer = app
            .post(PATH, completion(json!({"max_tokens": max_tokens})))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["usage"]["completion_tokens"], tokens);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
}

//! `POST embeddings`.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_engine::Facts;
use weir_engine::embed::{Embedding, Shortening};
use weir_testkit::{Scripted, TestApp};

const PATH: &str = "/v1/embeddings";

/// An engine for an embedding model.
pub(crate) fn embedder(shortening: Shortening) -> Scripted {
    Scripted::new(Vec::new()).with_facts(Facts {
        context_tokens: 512,
        chat: false,
        generates: false,
        embedding: Some(Embedding {
            dimensions: 4,
            input_tokens_max: 512,
            shortening,
        }),
        features: Vec::new(),
        fingerprint: "".into(),
    })
}

fn asked(fields: Value) -> String {
    crate::with(json!({"model": "sim/chat", "input": "abc"}), fields)
}

#[tokio::test]
async fn an_answer() {
    let app = TestApp::scripted(&embedder(Shortening::Any)).await;
    let answer = app.post(PATH, asked(json!({"user": "me"}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_snapshot!(answer.json(), @r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[4.0,4.0,4.0,4.0]}],"model":"sim/chat","usage":{"prompt_tokens":4,"total_tokens":4}}"#);
    let base64 = json!({"input": ["abc", "ab"], "encoding_format": "base64", "dimensions": 1});
    let answer = app.post(PATH, asked(base64)).await;
    assert_snapshot!(answer.json(), @r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAQA=="},{"object":"embedding","index":1,"embedding":"AABAQA=="}],"model":"sim/chat","usage":{"prompt_tokens":7,"total_tokens":7}}"#);
}

/// The four forms of an input.
#[tokio::test]
async fn inputs() {
    let app = TestApp::scripted(&embedder(Shortening::Never)).await;
    let rows = [
        (json!("abc"), json!([4.0])),
        (json!(["a", "abc"]), json!([2.0, 4.0])),
        (json!([65, 66]), json!([2.0])),
        (json!([[65], [66, 67, 68]]), json!([1.0, 3.0])),
    ];
    for (input, expected) in rows {
        let answer = app.post(PATH, asked(json!({"input": input}))).await.json();
        let data = answer["data"].as_array().unwrap();
        let firsts: Vec<_> = data.iter().map(|one| one["embedding"][0].clone()).collect();
        assert_eq!(json!(firsts), expected, "{input}");
        let indices: Vec<_> = data
            .iter()
            .map(|one| one["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indices, (0..data.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_refused() {
    let any = TestApp::scripted(&embedder(Shortening::Any)).await;
    let never = TestApp::scripted(&embedder(Shortening::Never)).await;
    let none = TestApp::scripted(&Scripted::new(Vec::new())).await;
    let rows = [
        (&any, json!({"input": vec!["a"; 2048]}), None),
        (&any, json!({"input": vec!["a"; 2049]}), Some("input")),
        (&any, json!({"input": null}), Some("input")),
        (&any, json!({"input": ""}), Some("input")),
        (&any, json!({"input": []}), Some("input")),
        (&any, json!({"input": ["a", ""]}), Some("input")),
        (&any, json!({"input": [[]]}), Some("input")),
        (&any, json!({"input": ["a", 5]}), Some("input.1")),
        (&any, json!({"input": {}}), Some("input")),
        (&any, json!({"encoding_format": "float"}), None),
        (
            &any,
            json!({"encoding_format": "int8"}),
            Some("encoding_format"),
        ),
        (&any, json!({"encoding_format": 5}), Some("encoding_format")),
        (&any, json!({"dimensions": 1}), None),
        (&any, json!({"dimensions": 4}), None),
        (&any, json!({"dimensions": 5}), Some("dimensions")),
        (&any, json!({"dimensions": 0}), Some("dimensions")),
        (&any, json!({"dimensions": -1}), Some("dimensions")),
        (&never, json!({"dimensions": 4}), None),
        (&never, json!({"dimensions": 3}), Some("dimensions")),
        (&any, json!({"model": null}), Some("model")),
        (
            &any,
            json!({"api_base": "http://127.0.0.1"}),
            Some("api_base"),
        ),
        (&none, json!({}), Some("model")),
    ];
    for (app, fields, refused) in rows {
        let answer = app.post(PATH, asked(fields.clone())).await;
        match refused {
            None => assert_eq!(answer.status, 200, "{:.200}", answer.text()),
            Some(param) => {
                assert_eq!(answer.status, 400, "{fields}");
                assert_eq!(answer.json()["error"]["param"], param, "{}", answer.text());
            }
        }
    }
    let message = none.post(PATH, asked(json!({}))).await.json()["message"].clone();
    assert_eq!(
        message,
        "model: sim/chat does not support feature: embeddings"
    );
}

/// Each token of the inputs is charged, and nothing for a refused request.
#[tokio::test]
async fn what_is_charged() {
    let app = TestApp::scripted(&embedder(Shortening::Never)).await;
    let balance = async || app.accounts.account("test").await.unwrap();
    let before = balance().await;
    app.post(PATH, asked(json!({"dimensions": 3}))).await;
    app.app.gateway.settled().await;
    assert_eq!(balance().await.posted, before.posted);
    let answer = app
        .post(PATH, asked(json!({"input": ["abc", "ab"]})))
        .await
        .json();
    let after = balance().await;
    let tokens = answer["usage"]["total_tokens"].as_i64().unwrap();
    assert_eq!(tokens, 7);
    assert_eq!(
        before.posted.get() - after.posted.get(),
        (tokens * 200 + 9) / 10
    );
    assert_eq!(after.held.get(), 0);
}

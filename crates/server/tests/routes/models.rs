//! `GET models` and `GET models/{id}`.

use http::Request;
use insta::assert_snapshot;
use serde_json::json;
use weir_engine::embed::{Embedding, Shortening};
use weir_engine::{Facts, Feature};
use weir_testkit::{Scripted, TestApp, body};

#[tokio::test]
async fn the_list_shows_every_model() {
    let app = TestApp::new().await;
    let answer = app.get("/v1/models").await;
    assert_eq!(answer.status, 200);
    let mut shown = answer.json()["data"][0].take();
    // The features of the simulated model are the subject of another test.
    shown["features"] = "…".into();
    let shown = serde_json::to_string_pretty(&shown).unwrap();
    assert_snapshot!(shown, @r#"
    {
      "id": "sim/chat",
      "object": "model",
      "created": 1795348800,
      "owned_by": "sim",
      "title": "The model sim/chat",
      "display_name": "The model sim/chat",
      "description": "A simulated model",
      "context_size": 4096,
      "max_output_tokens": 1024,
      "input_token_price_per_m": 200,
      "output_token_price_per_m": 400,
      "pricing": {
        "prompt": {
          "price_per_m": 200,
          "price_per_m_decimal": "0.02"
        },
        "completion": {
          "price_per_m": 400,
          "price_per_m_decimal": "0.04"
        }
      },
      "features": "…",
      "endpoints": [
        "chat/completions",
        "completions"
      ],
      "model_type": "chat",
      "status": 1
    }
    "#);
    let statuses: Vec<_> = answer.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| json!([m["id"], m["status"], m["model_type"]]))
        .collect();
    assert_snapshot!(json!(statuses), @r#"[["sim/chat",1,"chat"],["sim/plain",1,"completion"],["sim/down",0,"completion"]]"#);
    assert_eq!(answer.json()["object"], "list");
}

/// The listed features and endpoints are those of the engine.
#[tokio::test]
async fn features_and_endpoints() {
    let facts = |chat, generates, embeds: bool, features: &[Feature]| Facts {
        context_tokens: 4096,
        chat,
        generates,
        embedding: embeds.then_some(Embedding {
            dimensions: 4,
            input_tokens_max: 512,
            shortening: Shortening::Never,
        }),
        features: features.to_vec(),
        fingerprint: "".into(),
    };
    let all = [
        Feature::FunctionCalling,
        Feature::StructuredOutputs,
        Feature::Reasoning,
    ];
    let rows = [
        (
            facts(true, true, false, &all),
            json!([
                ["function-calling", "structured-outputs", "reasoning"],
                ["chat/completions", "completions"],
                "chat"
            ]),
        ),
        (
            facts(false, true, true, &all[1..2]),
            json!([
                ["structured-outputs"],
                ["completions", "embeddings"],
                "completion"
            ]),
        ),
        (
            facts(false, false, true, &[]),
            json!([[], ["embeddings"], "embedding"]),
        ),
    ];
    for (facts, expected) in rows {
        let engine = Scripted::new(Vec::new()).with_facts(facts);
        let app = TestApp::scripted(&engine).await;
        let model = app.get("/v1/models/sim/chat").await.json();
        assert_eq!(
            json!([model["features"], model["endpoints"], model["model_type"]]),
            expected
        );
    }
}

/// An invalid key is ignored where no key is needed.
#[tokio::test]
async fn nobody_looks_at_the_key() {
    let app = TestApp::new().await;
    for key in [
        "",
        "Bearer",
        "Bearer sk_wrong_key",
        "Basic eDp5",
        "' OR 1=1 --",
    ] {
        for path in ["/v1/models", "/v1/models/sim/chat"] {
            let request = Request::get(path)
                .header("authorization", key)
                .body(body(""))
                .unwrap();
            assert_eq!(app.send(request).await.status, 200, "{path} with {key:?}");
        }
    }
}

/// Ids contain slashes.
#[tokio::test]
async fn a_model_by_its_id() {
    let app = TestApp::new().await;
    let found = [
        "sim/chat",
        "sim%2Fchat",
        "sim%2fchat",
        "sim/chat/",
        "sim//chat",
        "%73im/chat",
    ];
    for id in found {
        let answer = app.get(&format!("/v1/models/{id}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["id"]),
            (200, &json!("sim/chat")),
            "{id}"
        );
    }
    let unknown = [
        "sim",
        "sim/chat/x",
        "sim%252Fchat",
        "SIM/chat",
        "sim/chat%00",
        "sim/chat%FF",
        "../models",
        "sim;chat",
        "sim%5Cchat",
    ];
    for id in unknown {
        let answer = app.get(&format!("/v1/models/{id}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (404, &json!("MODEL_NOT_FOUND")),
            "{id}"
        );
    }
}

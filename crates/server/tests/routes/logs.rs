//! Each request has a log line, and no log line contains a key.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::{Method, Request};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use weir_accounts::{KeyOptions, KeyRole};
use weir_inference::sim::{Faults, SimModel, SimOptions};
use weir_testkit::{Setup, TestApp, body, offer};

use crate::chat;

const CHAT: &str = "/v1/chat/completions";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The log lines of requests, after a check of the fields that are always the same.
    fn requests(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let requests = lines.filter(|line| line["fields"]["message"] == "request");
        requests
            .map(|line| {
                assert_eq!(
                    line["span"]["id"].as_str().map(str::len),
                    Some(32),
                    "{line}"
                );
                let f = &line["fields"];
                json!([
                    f["method"],
                    f["route"],
                    f["status"],
                    f["reason"],
                    f["fault"],
                    f["outcome"],
                    f["key"].is_string()
                ])
            })
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn a_stream_that_ends_with_an_error_is_logged_as_failed() {
    let faults = Faults {
        fault_at: Some(3),
        ..Faults::default()
    };
    let broken = SimModel::new(SimOptions {
        faults,
        end_probability: 0.0,
        ..SimOptions::default()
    });
    let app = TestApp::start(Setup {
        offers: vec![offer("sim/chat", Some(broken))],
        ..Setup::default()
    })
    .await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(log.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let answer = app.post(CHAT, chat(json!({"stream": true}))).await;
    drop(guard);
    assert!(answer.frames().last().unwrap().get("error").is_some());
    let failed = json!([
        "POST",
        CHAT,
        200,
        "internal_error",
        "server",
        "failed during the answer",
        true
    ]);
    assert_eq!(log.requests(), [failed]);
}

#[tokio::test]
async fn one_line_a_request_and_no_key() {
    let app = TestApp::new().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());

    let key = app.key.clone();
    let mut answers = vec![
        app.get("/v1/models").await,
        app.get("/v1/models/sim%2Fchat?token=1").await,
        app.get("/health").await,
        app.post(CHAT, chat(json!({}))).await,
        app.post(CHAT, chat(json!({"stream": true}))).await,
    ];
    // The key in every wrong place.
    answers.extend([
        app.get(&format!("/{key}")).await,
        app.get(&format!("/v1/models/{key}?key={key}")).await,
        app.post(CHAT, chat(json!({"model": key}))).await,
        app.post(CHAT, chat(json!({"logit_bias": {key.clone(): "x"}})))
            .await,
        app.post(CHAT, chat(json!({"temperature": key, "user": key})))
            .await,
        app.post(CHAT, key.clone()).await,
    ]);
    // A new key is shown to the administrator who made it, and isn't logged.
    let options = KeyOptions {
        role: KeyRole::Admin,
        ..KeyOptions::default()
    };
    let admin = app.key_with(options).await;
    let request = |path: &str, sent: &str| {
        let request = Request::post(path).header("authorization", format!("Bearer {admin}"));
        request.body(body(sent.to_owned())).unwrap()
    };
    let made = app
        .send(request("/admin/v1/accounts/test/keys", "{}"))
        .await
        .json();
    let rotate = format!("/admin/v1/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = app
        .send(request(&rotate, r#"{"grace_seconds":0}"#))
        .await
        .json();
    let shown = [&made["key"], &rotated["key"]].map(|key| key.as_str().unwrap().to_owned());
    answers.push(
        app.send(request(&format!("/admin/v1/keys/{key}/x"), ""))
            .await,
    );
    answers.push(
        app.send(request(
            "/admin/v1/accounts",
            &json!({"name": key}).to_string(),
        ))
        .await,
    );
    answers.push(
        app.send(request(
            "/admin/v1/accounts",
            &json!({key.clone(): 1}).to_string(),
        ))
        .await,
    );
    let wrong = Request::post(CHAT)
        .header("authorization", format!("Bearer {key}x"))
        .header(&key.to_lowercase(), &key);
    answers.push(app.send(wrong.body(body("")).unwrap()).await);
    drop(
        app.open(app.request(Method::POST, CHAT, chat(json!({"stream": true}))))
            .await,
    );
    drop(guard);

    assert_eq!(
        log.requests(),
        [
            json!(["GET", "/v1/models", 200, null, null, "complete", false]),
            json!([
                "GET",
                "/v1/models/{*id}",
                200,
                null,
                null,
                "complete",
                false
            ]),
            json!(["GET", "/health", 200, null, null, "complete", false]),
            json!(["POST", CHAT, 200, null, null, "complete", true]),
            json!(["POST", CHAT, 200, null, null, "complete", true]),
            json!([
                "GET",
                "/sk_…",
                404,
                "not_found",
                "caller",
                "complete",
                false
            ]),
            json!([
                "GET",
                "/v1/models/{*id}",
                404,
                "model_not_found",
                "caller",
                "complete",
                false
            ]),
            json!([
                "POST",
                CHAT,
                404,
                "model_not_found",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                CHAT,
                400,
                "invalid_request",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                CHAT,
                400,
                "invalid_request",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                CHAT,
                400,
                "invalid_request",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                "/admin/v1/accounts/{account}/keys",
                200,
                null,
                null,
                "complete",
                true
            ]),
            json!([
                "POST",
                "/admin/v1/keys/{key}/rotate",
                200,
                null,
                null,
                "complete",
                true
            ]),
            json!([
                "POST",
                "/admin/v1/keys/sk_…/x",
                404,
                "not_found",
                "caller",
                "complete",
                false
            ]),
            json!([
                "POST",
                "/admin/v1/accounts",
                400,
                "invalid_request",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                "/admin/v1/accounts",
                400,
                "invalid_request",
                "caller",
                "complete",
                true
            ]),
            json!([
                "POST",
                CHAT,
                401,
                "invalid_api_key",
                "caller",
                "complete",
                false
            ]),
            json!([
                "POST",
                CHAT,
                200,
                null,
                null,
                "gone during the answer",
                true
            ]),
        ]
    );
    let secret = key.rsplit('_').next().unwrap();
    for key in [&key, &admin, &shown[0], &shown[1]] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!log.text().contains(secret), "a key is in the log");
    }
    for answer in answers {
        let headers = format!("{:?}", answer.headers);
        assert!(
            !answer.text().contains(secret) && !headers.contains(secret),
            "the key is in an answer"
        );
    }
}

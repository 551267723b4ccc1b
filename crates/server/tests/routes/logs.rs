//! Each request has a log line, and no log line contains a key.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tracing_subscriber::fmt::MakeWriter;
use weir_accounts::{KeyOptions, KeyRole, Nanos};
use weir_engine::request::Invalid;
use weir_engine::{Channel, EngineError, Event};
use weir_gateway::limits::Quotas;
use weir_testkit::{Scripted, Setup, TestApp, body};

use crate::chat;
use crate::serve::{Server, endless, read_to_end, read_until};

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
        Write::write(&mut *self.0.lock().unwrap(), bytes)
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

/// The reason, the fault and the outcome in the log line of each request that `client` sends.
async fn logged(client: impl AsyncFnOnce()) -> Vec<Value> {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::INFO)
        .with_writer(log.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    client().await;
    drop(guard);
    let fields = |line: &Value| json!([line[3], line[4], line[5]]);
    log.requests().iter().map(fields).collect()
}

/// Whatever ends a generation, its answer is logged as failed with the reason: a stream as one that failed on its way,
/// although its status is 200.
#[tokio::test]
async fn a_failed_answer_has_its_reason() {
    let retry_after = Duration::from_secs(1);
    let text = Event::Text {
        choice: 0,
        channel: Channel::Content,
        text: "a".to_owned(),
        tokens: 1,
        logprobs: Vec::new(),
        ids: Vec::new(),
    };
    let failed = |error| vec![text.clone(), Event::Failed(error)];
    let rows = [
        (
            failed(EngineError::Busy { retry_after }),
            503,
            "queue_full",
            "load",
        ),
        (
            failed(EngineError::Draining { retry_after }),
            503,
            "draining",
            "load",
        ),
        (
            failed(EngineError::TooMuchGrammarWork { retry_after }),
            429,
            "grammar_work_limit",
            "caller",
        ),
        (
            failed(EngineError::SlowReader),
            500,
            "slow_reader",
            "caller",
        ),
        (
            failed(EngineError::Unavailable("it is gone".to_owned())),
            500,
            "model_not_available",
            "server",
        ),
        (
            failed(EngineError::Fault("a bug".to_owned())),
            500,
            "internal_error",
            "server",
        ),
        (
            failed(Invalid::new("tools", "too complex").into()),
            400,
            "invalid_request",
            "caller",
        ),
        (vec![text.clone()], 500, "internal_error", "server"),
    ];
    for (script, status, reason, fault) in rows {
        let app = TestApp::scripted(&Scripted::new(script)).await;
        let lines = logged(async || {
            let whole = app.post(CHAT, chat(json!({}))).await;
            assert_eq!(whole.status, status, "{reason}: {}", whole.text());
            let streamed = app.post(CHAT, chat(json!({"stream": true}))).await;
            assert_eq!(streamed.status, 200, "{reason}");
            assert!(streamed.frames().last().unwrap().get("error").is_some());
        });
        let expected = [
            json!([reason, fault, "complete"]),
            json!([reason, fault, "failed during the answer"]),
        ];
        assert_eq!(lines.await, expected);
    }
}

#[tokio::test]
async fn a_refusal_has_its_own_reason() {
    let quotas = |quotas: Quotas| Setup {
        quotas,
        ..Setup::default()
    };
    let rows = [
        (
            quotas(Quotas {
                requests_per_minute: Some(1),
                ..Quotas::default()
            }),
            json!(["request_limit", "caller", "complete"]),
        ),
        (
            quotas(Quotas {
                tokens_per_minute: Some(40),
                ..Quotas::default()
            }),
            json!(["token_limit", "caller", "complete"]),
        ),
        (
            Setup {
                credit: Nanos::new(10_000),
                ..Setup::default()
            },
            json!(["balance_too_low", "caller", "complete"]),
        ),
    ];
    for (setup, expected) in rows {
        let app = TestApp::start(setup).await;
        let lines = logged(async || {
            app.post(CHAT, chat(json!({"max_tokens": 1}))).await;
            app.post(CHAT, chat(json!({"max_tokens": 1000}))).await;
        });
        assert_eq!(lines.await, [json!([null, null, "complete"]), expected]);
    }
    let (setup, _probe, gate) = endless();
    let quotas = Quotas {
        concurrent_requests: Some(1),
        ..Quotas::default()
    };
    let app = TestApp::start(Setup { quotas, ..setup }).await;
    let lines = logged(async || {
        let running = app
            .open(app.request(Method::POST, CHAT, chat(json!({"stream": true}))))
            .await;
        app.post(CHAT, chat(json!({}))).await;
        app.app.gateway.drain();
        app.post(CHAT, chat(json!({}))).await;
        drop(running);
    });
    let expected = [
        json!(["concurrency_limit", "caller", "complete"]),
        json!(["draining", "load", "complete"]),
        json!([null, null, "gone during the answer"]),
    ];
    assert_eq!(lines.await, expected);
    gate.open();
}

#[tokio::test]
async fn a_stream_that_a_stop_cuts_is_the_servers_fault() {
    let (setup, _probe, gate) = endless();
    let lines = logged(async || {
        Server::run(setup, async |server| {
            let mut stream = server.connect().await;
            let body = chat(json!({"stream": true, "max_tokens": 1000}));
            stream
                .write_all(server.request(&body).as_bytes())
                .await
                .unwrap();
            read_until(&mut stream, "role").await;
            server.stop.hard.cancel();
            read_to_end(&mut stream).await;
            gate.open();
        })
        .await;
    });
    assert_eq!(
        lines.await,
        [json!(["stopped", "server", "failed during the answer"])]
    );
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

//! Headers that every answer has.

use std::collections::HashSet;

use http::{Method, Request};
use serde_json::json;
use weir_gateway::limits::Quotas;
use weir_server::Options;
use weir_testkit::{Answer, Setup, TestApp, body};

use crate::chat;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn every_answer_is_identified() {
    let app = TestApp::new().await;
    let mut ids = HashSet::new();
    let answers = [
        app.get("/v1/models").await,
        app.get("/health").await,
        app.get("/nowhere").await,
        app.get(CHAT).await,
        app.send(Request::post(CHAT).body(body("")).unwrap()).await,
        app.post(CHAT, "{").await,
        app.post(CHAT, chat(json!({}))).await,
        app.post(CHAT, chat(json!({"stream": true}))).await,
    ];
    for answer in answers {
        let id = answer.header("x-request-id").to_owned();
        assert_eq!(id.len(), 32);
        assert!(ids.insert(id), "no id twice");
        assert!(answer.header("openai-processing-ms").parse::<u64>().is_ok());
        assert_eq!(answer.header("openai-version"), "2020-10-01");
    }
}

/// Callers can't choose the request id: it is the key of a hold.
#[tokio::test]
async fn ids_are_ours() {
    let app = TestApp::new().await;
    let mut request = app.request(Method::POST, CHAT, chat(json!({})));
    request
        .headers_mut()
        .insert("x-request-id", "mine".parse().unwrap());
    let answer = app.send(request).await;
    assert_ne!(answer.header("x-request-id"), "mine");
    assert_eq!(
        answer.json()["id"],
        format!("chatcmpl-{}", answer.header("x-request-id"))
    );
}

fn limits(answer: &Answer) -> [&str; 6] {
    [
        answer.header("x-ratelimit-limit-requests"),
        answer.header("x-ratelimit-remaining-requests"),
        answer.header("x-ratelimit-reset-requests"),
        answer.header("x-ratelimit-limit-tokens"),
        answer.header("x-ratelimit-remaining-tokens"),
        answer.header("x-ratelimit-reset-tokens"),
    ]
}

#[tokio::test]
async fn limits_are_on_every_keyed_answer() {
    let quotas = Quotas {
        requests_per_minute: Some(2),
        ..Quotas::default()
    };
    let app = TestApp::start(Setup {
        quotas,
        ..Setup::default()
    })
    .await;
    assert_eq!(
        limits(&app.post(CHAT, "{").await),
        ["2", "2", "0s", "", "", ""],
        "a refused body counts for nothing"
    );
    let answer = app.post(CHAT, chat(json!({}))).await;
    assert_eq!(limits(&answer)[..2], ["2", "1"]);
    let reset: u64 = limits(&answer)[2]
        .strip_suffix('s')
        .unwrap()
        .parse()
        .unwrap();
    assert!((20..=30).contains(&reset), "{reset}");
    app.post(CHAT, chat(json!({"stream": true}))).await;
    let refused = app.post(CHAT, chat(json!({}))).await;
    assert_eq!(refused.status, 429);
    assert_eq!(limits(&refused)[..2], ["2", "0"]);
    assert_eq!(limits(&app.get("/v1/models").await), [""; 6]);
}

async fn with_origins(origins: &[&str]) -> TestApp {
    let cors_origins = origins.iter().map(|&origin| origin.to_owned()).collect();
    TestApp::start(Setup {
        options: Options {
            cors_origins,
            ..Options::default()
        },
        ..Setup::default()
    })
    .await
}

fn preflight(path: &str) -> Request<weir_testkit::Body> {
    Request::options(path)
        .header("origin", "https://a.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization, content-type, x-anything",
        )
        .body(body(""))
        .unwrap()
}

#[tokio::test]
async fn cors_is_off_unless_configured() {
    let app = TestApp::new().await;
    let answer = app.send(preflight(CHAT)).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("access-control-allow-origin")
        ),
        (405, "")
    );
}

#[tokio::test]
async fn preflights_work_for_every_path() {
    for (origins, allowed) in [
        (&["*"][..], "*"),
        (
            &["https://b.example", "https://a.example"],
            "https://a.example",
        ),
    ] {
        let app = with_origins(origins).await;
        for path in [
            CHAT,
            "/v1/models",
            "/health",
            "/nowhere",
            "//v1//chat/completions/",
        ] {
            let answer = app.send(preflight(path)).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed,
                "{path}"
            );
            assert!(
                answer
                    .header("access-control-allow-headers")
                    .contains("authorization")
            );
            assert!(!answer.header("x-request-id").is_empty());
        }
        let mut request = app.request(Method::POST, CHAT, chat(json!({})));
        request
            .headers_mut()
            .insert("origin", "https://a.example".parse().unwrap());
        let answer = app.send(request).await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.header("access-control-allow-origin")
            ),
            (200, allowed)
        );
        assert_eq!(answer.header("access-control-expose-headers"), "*");
    }
    let app = with_origins(&["https://b.example"]).await;
    assert_eq!(
        app.send(preflight(CHAT))
            .await
            .header("access-control-allow-origin"),
        ""
    );
}

#[tokio::test]
async fn origins_are_replaced() {
    let app = TestApp::new().await;
    let allowed = async || {
        let answer = app.send(preflight(CHAT)).await;
        let allowed = answer.header("access-control-allow-origin").to_owned();
        (answer.status.as_u16(), allowed)
    };
    assert_eq!(allowed().await, (405, String::new()));
    app.app.cors().allow(&["https://a.example".to_owned()]);
    assert_eq!(allowed().await, (200, "https://a.example".to_owned()));
    app.app.cors().allow(&["*".to_owned()]);
    assert_eq!(allowed().await, (200, "*".to_owned()));
    app.app.cors().allow(&[]);
    assert_eq!(allowed().await, (405, String::new()));
}

/// `Retry-After` is the time at which the same request would be admitted: with a limit of one a minute, a minute.
#[tokio::test]
async fn retry_after_is_true() {
    let quotas = Quotas {
        requests_per_minute: Some(1),
        ..Quotas::default()
    };
    let app = TestApp::start(Setup {
        quotas,
        ..Setup::default()
    })
    .await;
    app.post(CHAT, chat(json!({}))).await;
    let seconds: u64 = app
        .post(CHAT, chat(json!({})))
        .await
        .header("retry-after")
        .parse()
        .unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
}

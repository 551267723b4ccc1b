//! `GET /health` and `GET /ready`.

use serde_json::json;
use weir_testkit::{Setup, TestApp, offer};

#[tokio::test]
async fn ready_means_that_requests_can_be_served() {
    let app = TestApp::new().await;
    let check = async |path: &str, status: u16| {
        let answer = app.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        answer.json()
    };
    assert_eq!(check("/health", 200).await, json!({"status": "ok"}));
    assert_eq!(check("/ready", 200).await, json!({"status": "ready"}));
    app.app.gateway.drain();
    check("/health", 200).await;
    check("/ready", 503).await;
}

#[tokio::test]
async fn not_ready_without_an_engine() {
    let app = TestApp::start(Setup {
        offers: vec![offer("sim/down", None)],
        ..Setup::default()
    })
    .await;
    assert_eq!(app.get("/ready").await.status, 503);
    assert_eq!(app.get("/health").await.status, 200);
}

#[tokio::test]
async fn not_ready_without_the_database() {
    let app = TestApp::new().await;
    app.accounts.close().await;
    assert_eq!(app.get("/ready").await.status, 503);
    assert_eq!(app.get("/health").await.status, 200);
}

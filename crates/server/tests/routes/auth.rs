//! Which keys may use which routes, in every way to write a key.

use http::{HeaderValue, Method, Request};
use proptest::prelude::*;
use serde_json::json;
use weir_accounts::{KeyOptions, KeyRole};
use weir_engine::embed::Shortening;
use weir_server::{Auth, Reloaded, Route, routes};
use weir_testkit::{NOW, Setup, TestApp, body, now, offer_of};

use crate::embeddings::embedder;
use crate::{admin, chat, completion};

const CHAT: &str = "/v1/chat/completions";

async fn status(app: &TestApp, headers: &[&[u8]]) -> u16 {
    let mut request = Request::post(CHAT);
    for value in headers {
        request = request.header("authorization", HeaderValue::from_bytes(value).unwrap());
    }
    app.send(request.body(body(chat(json!({"max_tokens": 1})))).unwrap())
        .await
        .status
        .as_u16()
}

/// A body that this route accepts.
fn body_for(path: &str) -> String {
    match path {
        "/embeddings" => json!({"model": "sim/embed", "input": "a"}).to_string(),
        "/tokenize" => json!({"model": "sim/chat", "prompt": "a"}).to_string(),
        "/detokenize" => json!({"model": "sim/chat", "tokens": [65]}).to_string(),
        "/completions" => completion(json!({"max_tokens": 1})),
        _ => chat(json!({"max_tokens": 1})),
    }
}

/// A body that this administrative route accepts.
fn body_for_admin(route: &Route, request: &str, nth: usize) -> String {
    let money = |amount: &str| json!({"amount": amount, "reason": "a test"});
    match (&route.method, route.path.rsplit('/').next().unwrap()) {
        (&Method::POST, "accounts") => json!({"name": format!("account-{nth}")}),
        (&Method::POST, "rotate") => json!({"grace_seconds": 0}),
        (&Method::POST, "credits" | "adjustments") => money("1"),
        (&Method::POST, "promos") => {
            crate::with(money("1"), json!({"expires_at": "2027-01-01T00:00:00Z"}))
                .parse()
                .unwrap()
        }
        (&Method::POST, "refunds") => {
            crate::with(money("0.000000001"), json!({"request": request}))
                .parse()
                .unwrap()
        }
        _ => json!({}),
    }
    .to_string()
}

/// Every kind of key on every route. Without a key only the open routes answer, and no body is read.
#[tokio::test]
async fn routes_and_roles() {
    let mut setup = Setup::default();
    setup.offers.push(offer_of(
        "sim/embed",
        Some(std::sync::Arc::new(embedder(Shortening::Never))),
    ));
    let mut app = TestApp::start(setup).await;
    let _reloads = admin::reload::answer(&mut app, Ok(Reloaded::default()));
    let revoked = app.key_with(KeyOptions::default()).await;
    let id = revoked.split('_').nth(1).unwrap().to_owned();
    app.accounts.revoke_key(&id, jiff(NOW)).await.unwrap();
    let expires_now = KeyOptions {
        expires_at: Some(jiff(NOW).into()),
        ..KeyOptions::default()
    };
    let minute_ago = jiff(NOW - 60);
    let expired = app
        .accounts
        .add_key_with(&app.account.id, expires_now, minute_ago);
    let expired = expired.await.unwrap().secret.expose().to_owned();
    let elsewhere = app
        .key_with(KeyOptions {
            models: Some(vec!["other".to_owned()]),
            ..KeyOptions::default()
        })
        .await;
    let mut administrators = Vec::new();
    for role in [KeyRole::Admin, KeyRole::Billing, KeyRole::Viewer] {
        let options = KeyOptions {
            role,
            ..KeyOptions::default()
        };
        administrators.push(app.key_with(options).await);
    }
    let role_of = |key: &str| {
        let nth = administrators.iter().position(|known| known == key);
        nth.map(|nth| [KeyRole::Admin, KeyRole::Billing, KeyRole::Viewer][nth])
    };
    let administrators = administrators.iter().map(|key| (Some(key.as_str()), 403));
    let roles = [
        (None, 401),
        (Some("sk_unknown_key"), 401),
        (Some(revoked.as_str()), 401),
        (Some(expired.as_str()), 401),
        (Some(elsewhere.as_str()), 403),
        (Some(app.key.as_str()), 200),
    ];
    let roles: Vec<_> = roles.into_iter().chain(administrators).collect();
    let charged = app.post(CHAT, chat(json!({"max_tokens": 1}))).await;
    let charged = charged.header("x-request-id").to_owned();
    let target = app.key_with(KeyOptions::default()).await;
    let target = target.split('_').nth(1).unwrap();
    let mut nth = 0;
    for route in routes() {
        for base in route.under.bases() {
            for &(key, keyed) in &roles {
                nth += 1;
                let path = format!("{base}{}", route.path.replace("{*id}", "sim/chat"));
                // Each deletion gets an account of its own.
                let spare = format!("spare-{nth}");
                let account = match route.method == Method::DELETE {
                    true => app.accounts.add_account(&spare, now()).await.unwrap().name,
                    false => "test".to_owned(),
                };
                let path = path.replace("{account}", &account).replace("{key}", target);
                let mut request = Request::builder().method(&route.method).uri(&path);
                if let Some(key) = key {
                    request = request.header("authorization", format!("Bearer {key}"));
                }
                let asked = match route.auth {
                    Auth::Admin(_) => body_for_admin(route, &charged, nth),
                    Auth::Open | Auth::Key | Auth::AnyKey => body_for(route.path),
                };
                let request = request.header("idempotency-key", nth);
                let answer = app.send(request.body(body(asked)).unwrap()).await;
                let expected = match route.auth {
                    Auth::Open => 200,
                    Auth::Key => keyed,
                    // A key's restrictions apply to what it uses, not to what it may read about itself.
                    Auth::AnyKey => {
                        if keyed == 401 {
                            401
                        } else {
                            200
                        }
                    }
                    Auth::Admin(roles) => match key.and_then(role_of) {
                        Some(role) if roles.contains(&role) => 200,
                        None if keyed == 401 => 401,
                        Some(_) | None => 403,
                    },
                };
                assert_eq!(
                    answer.status,
                    expected,
                    "{} {path} as {key:?}: {}",
                    route.method,
                    answer.text()
                );
            }
        }
    }
}

fn jiff(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap()
}

#[tokio::test]
async fn ways_to_write_a_key() {
    let app = TestApp::new().await;
    let key = &app.key;
    let good = [
        format!("Bearer {key}"),
        format!("bearer {key}"),
        format!("BEARER   {key}"),
        format!("Bearer\t{key}"),
        format!("  Bearer {key}  "),
        key.clone(),
    ];
    for value in good {
        assert_eq!(status(&app, &[value.as_bytes()]).await, 200, "{value}");
    }
    let cut = &key[..key.len() - 1];
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer{key}"),
        format!("Basic {key}"),
        format!("Bearer {cut}"),
        format!("Bearer {key}x"),
        format!("Bearer {key} {key}"),
        format!("Bearer Bearer {key}"),
        format!("Bearer \"{key}\""),
        format!("Bearer {}", key.to_uppercase()),
        format!("Bearer {key}' OR '1'='1"),
        "Bearer sk__".to_owned(),
        "Bearer sk_%_%".to_owned(),
        format!("Bearer sk_{}_{}", "a".repeat(10_000), "b".repeat(10_000)),
    ];
    for value in &wrong {
        assert_eq!(status(&app, &[value.as_bytes()]).await, 401, "{value:.100}");
    }
    assert_eq!(status(&app, &[b"Bearer \xff\xfe"]).await, 401);
    let bearer = format!("Bearer {key}");
    assert_eq!(
        status(&app, &[bearer.as_bytes(), bearer.as_bytes()]).await,
        401,
        "two headers are none"
    );
    assert_eq!(status(&app, &[]).await, 401);
}

/// A key in the query, a cookie or another header isn't accepted.
#[tokio::test]
async fn keys_in_other_places() {
    let app = TestApp::new().await;
    for header in [
        "x-api-key",
        "cookie",
        "proxy-authorization",
        "x-forwarded-authorization",
    ] {
        let request = Request::post(CHAT).header(header, format!("Bearer {}", app.key));
        assert_eq!(
            app.send(request.body(body(chat(json!({})))).unwrap())
                .await
                .status,
            401,
            "{header}"
        );
    }
    let request = Request::post(format!(
        "{CHAT}?authorization=Bearer%20{0}&api_key={0}",
        app.key
    ));
    assert_eq!(
        app.send(request.body(body(chat(json!({})))).unwrap())
            .await
            .status,
        401
    );
}

/// Headers that integrations send and this server ignores.
#[tokio::test]
async fn other_headers_do_no_harm() {
    let app = TestApp::new().await;
    let mut request = app.request(Method::POST, CHAT, chat(json!({})));
    for header in [
        "x-novita-source",
        "x-api-source",
        "http-referer",
        "x-title",
        "x-dify-version",
        "openai-organization",
        "x-stainless-lang",
    ] {
        request.headers_mut().insert(
            header,
            HeaderValue::from_bytes(b"\xf0\x9f\x90\x9f ' -- ;").unwrap(),
        );
    }
    assert_eq!(app.send(request).await.status, 200);
}

/// Any invalid value of `Authorization` gets 401 in the error format, and the answer repeats nothing of it.
#[test]
fn strange_authorization() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let app = runtime.block_on(TestApp::new());
    let strange = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        "(Bearer )?sk_[A-Za-z0-9_-]{0,40}".prop_map(String::into_bytes),
        "(Bearer )?sk_[A-Za-z0-9]{1,20}_['\"; %\\\\-]{1,20}(OR|UNION|--)?"
            .prop_map(String::into_bytes),
    ];
    proptest!(ProptestConfig::with_cases(200), |(value in strange)| {
        if let Ok(header) = HeaderValue::from_bytes(&value) {
            let request = Request::post(CHAT).header("authorization", header).body(body("{}")).unwrap();
            let answer = runtime.block_on(app.send(request));
            prop_assert_eq!(answer.status.as_u16(), 401);
            prop_assert_eq!(&answer.json()["reason"], &json!("INVALID_API_KEY"));
            let text = String::from_utf8_lossy(&value);
            prop_assert!(text.len() < 16 || !answer.text().contains(text.trim()));
        }
    });
}

//! Limits for the memory of bodies that are still being read, for one key and for all keys.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use weir_accounts::{KeyOptions, Nanos, Quotas};
use weir_server::Options;
use weir_testkit::{Answer, Body, Setup, TestApp};

use crate::chat;

const CHAT: &str = "/v1/chat/completions";
const PIECE: usize = 1000;

fn options() -> Options {
    Options {
        body_bytes_max: 20 * PIECE,
        body_bytes_in_flight_per_key_max: 25 * PIECE,
        body_bytes_in_flight_max: 40 * PIECE,
        ..Options::default()
    }
}

/// A body that stalls after `pieces` chunks, and the number of chunks that were read of it.
fn unfinished(pieces: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let some = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; PIECE])))
    });
    let body = some.take(pieces).chain(stream::pending());
    (BodyExt::boxed(StreamBody::new(body)), taken)
}

fn request(path: &str, key: &str, body: Body) -> Request<Body> {
    let request = Request::post(path).header("authorization", key);
    request.body(body).unwrap()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, words: &str) {
    let text = answer.text();
    assert_eq!(answer.status.as_u16(), status, "{text}");
    assert!(text.contains(words), "{text}");
    assert_eq!(answer.header("retry-after"), "1");
}

/// A request whose body is being sent, until this is dropped.
struct Sending<F> {
    _request: F,
}

#[tokio::test]
async fn unfinished_bodies_of_a_key_and_of_all_are_bounded() {
    let app = TestApp::start(Setup {
        options: options(),
        ..Setup::default()
    })
    .await;
    let other = app.key_with(KeyOptions::default()).await;
    let third = app.key_with(KeyOptions::default()).await;
    let begin = |key: &str, pieces| {
        let (body, taken) = unfinished(pieces);
        let sent = Box::pin(app.send(request(CHAT, key, body)));
        async move {
            let mut sent = sent;
            while taken.load(Ordering::Relaxed) < pieces {
                assert!(futures::poll!(&mut sent).is_pending());
                tokio::task::yield_now().await;
            }
            assert!(futures::poll!(&mut sent).is_pending());
            Sending { _request: sent }
        }
    };
    let first = begin(&app.key, 19).await;
    let (body, taken) = unfinished(20);
    let answer = app.send(request(CHAT, &app.key, body)).await;
    refused(&answer, 429, "more than 25000 bytes of this key's requests");
    assert!(
        taken.load(Ordering::Relaxed) <= 8,
        "no more is read than fits"
    );
    // Other keys have their own limit, within the limit for all keys.
    let second = begin(&other, 19).await;
    let (body, _) = unfinished(20);
    refused(
        &app.send(request(CHAT, &third, body)).await,
        503,
        "too many bytes",
    );
    // Bodies that fit the remaining bytes are read.
    assert_eq!(app.post(CHAT, chat(json!({}))).await.status, 200);
    drop(first);
    drop(begin(&third, 19).await);
    drop(second);
    drop(begin(&app.key, 19).await);
    for _ in 0..100 {
        let fitting = chat(json!({})) + &" ".repeat(19 * PIECE);
        assert_eq!(
            app.post(CHAT, fitting).await.status,
            200,
            "what was parsed counts no more"
        );
    }
}

/// A caller that would be refused anyway is refused before its body is read.
#[tokio::test]
async fn no_body_is_read_in_vain() {
    let app = TestApp::start(Setup {
        credit: Nanos::ZERO,
        ..Setup::default()
    })
    .await;
    let read = async |path: &str, key: &str| {
        let (body, taken) = unfinished(5);
        let answer = app.send(request(path, key, body)).await;
        assert_eq!(
            taken.load(Ordering::Relaxed),
            0,
            "{path}: {}",
            answer.text()
        );
        (
            answer.status.as_u16(),
            answer.json()["reason"].as_str().unwrap().to_owned(),
        )
    };
    for path in [CHAT, "/v1/completions", "/v1/embeddings"] {
        assert_eq!(
            read(path, &app.key).await,
            (403, "NOT_ENOUGH_BALANCE".to_owned()),
            "{path}"
        );
    }
    let slow = KeyOptions {
        limits: Quotas {
            requests_per_minute: Some(1),
            ..Quotas::default()
        },
        ..KeyOptions::default()
    };
    let slow = app.key_with(slow).await;
    let free = json!({"model": "sim/chat", "prompt": "a"}).to_string();
    let tokenized = app
        .send(request("/tokenize", &slow, weir_testkit::body(free)))
        .await;
    assert_eq!(tokenized.status, 200, "what is free needs no balance");
    for path in [CHAT, "/tokenize", "/detokenize", "/count"] {
        assert_eq!(
            read(path, &slow).await,
            (429, "RATE_LIMIT_EXCEEDED".to_owned()),
            "{path}"
        );
    }
    app.app.gateway.drain();
    assert_eq!(
        read(CHAT, &app.key).await,
        (503, "SERVICE_NOT_AVAILABLE".to_owned())
    );
}

/// An account without balance may use a free model.
#[tokio::test]
async fn a_free_model_needs_no_balance() {
    let mut setup = Setup {
        credit: Nanos::ZERO,
        ..Setup::default()
    };
    setup.offers[0].price.input = 0;
    setup.offers[0].price.output = 0;
    let app = TestApp::start(setup).await;
    assert_eq!(app.post(CHAT, chat(json!({}))).await.status, 200);
    let priced = app
        .post("/v1/completions", crate::completion(json!({})))
        .await;
    assert_eq!(priced.status, 403);
    let restricted = KeyOptions {
        models: Some(vec!["sim/plain".to_owned()]),
        ..KeyOptions::default()
    };
    let restricted = app.key_with(restricted).await;
    let (body, taken) = unfinished(5);
    let answer = app.send(request(CHAT, &restricted, body)).await;
    assert_eq!(
        (answer.status.as_u16(), taken.load(Ordering::Relaxed)),
        (403, 0),
        "its key can't use it"
    );
}

/// The size of uncharged answers is limited, for tokens with long texts and for characters that JSON escapes.
#[tokio::test]
async fn free_answers_are_bounded() {
    let app = TestApp::start(Setup {
        options: Options {
            body_bytes_in_flight_per_key_max: 100 * PIECE,
            body_bytes_in_flight_max: 100 * PIECE,
            ..options()
        },
        ..Setup::default()
    })
    .await;
    let post = async |path: &str, body: String| app.post(path, body).await;
    let tokens = |token: u32, count: usize| {
        let tokens = vec![token; count];
        json!({"model": "sim/chat", "tokens": tokens}).to_string()
    };
    // 258 is the token of " the": four bytes of text for four bytes of JSON.
    assert_eq!(post("/detokenize", tokens(258, 4900)).await.status, 200);
    // 3 is the token of byte 1, for which JSON needs six bytes.
    let long = post("/detokenize", tokens(3, 6000)).await;
    assert_eq!(long.status, 400, "{}", long.text());
    assert_eq!(long.json()["error"]["param"], "tokens");
    assert!(long.text().contains("20000 bytes"), "{}", long.text());
    let prompt = |length: usize, strings: bool| {
        json!({"model": "sim/chat", "prompt": "a".repeat(length), "return_token_strs": strings})
            .to_string()
    };
    assert_eq!(post("/tokenize", prompt(2000, true)).await.status, 200);
    let long = post("/tokenize", prompt(5000, true)).await;
    assert_eq!(
        (long.status.as_u16(), &long.json()["error"]["param"]),
        (400, &json!("prompt"))
    );
}

/// An answer that the client doesn't read counts until it is dropped.
#[tokio::test]
async fn answers_that_nobody_reads_count() {
    let app = TestApp::start(Setup {
        options: Options {
            body_bytes_max: 100 * PIECE,
            body_bytes_in_flight_per_key_max: 200 * PIECE,
            body_bytes_in_flight_max: 1000 * PIECE,
            ..Options::default()
        },
        ..Setup::default()
    })
    .await;
    let body = json!({"model": "sim/chat", "tokens": vec![258; 10_000]}).to_string();
    let request = || request("/detokenize", &app.key, weir_testkit::body(body.clone()));
    let unread = app.open(request()).await;
    assert_eq!(unread.status(), 200);
    let second = app.open(request()).await;
    assert_eq!(second.status(), 200);
    let third = app.send(request()).await;
    refused(&third, 429, "bytes of this key's requests");
    drop(unread);
    assert_eq!(app.send(request()).await.status, 200);
    drop(second);
}

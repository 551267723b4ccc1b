//! Bodies that aren't valid requests: each gets a clear 400 or 413, and other requests aren't affected.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use proptest::prelude::*;
use serde_json::json;
use weir_server::Options;
use weir_testkit::{Body, Setup, TestApp};

use crate::chat;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn what_is_not_a_request() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let rows: &[(&[u8], &str)] = &[
        (b"", "the body is empty; a JSON object is expected"),
        (b" \n", "the body is empty; a JSON object is expected"),
        (
            b"{",
            "the body is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            b"{\"model\": \"sim/chat\",}",
            "the body is not valid JSON: trailing comma",
        ),
        (b"{} {}", "the body is not valid JSON: trailing characters"),
        (b"hello", "the body is not valid JSON: expected value"),
        (
            b"{\"temperature\": NaN}",
            "the body is not valid JSON: expected value",
        ),
        (
            b"{\"temperature\": 1e999}",
            "the body is not valid JSON: number out of range",
        ),
        (
            b"{\"model\": \"\xff\"}",
            "the body is not valid UTF-8: byte 11 does not belong there",
        ),
        (
            b"\xef\xbb\xbf",
            "the body is empty; a JSON object is expected",
        ),
        (
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            "the body is not valid JSON: expected value",
        ),
        (
            b"{}\xef\xbb\xbf",
            "the body is not valid JSON: trailing characters",
        ),
        (
            b"null",
            "the body is not a request: invalid type: null, expected an object",
        ),
        (
            b"[]",
            "the body is not a request: invalid type: sequence, expected an object",
        ),
        (
            b"\"sk_secret\"",
            "the body is not a request: invalid type: string, expected an object",
        ),
        (
            b"{\"messages\": \"sk_secret\"}",
            "messages: invalid type: string, expected an array",
        ),
        (
            deep.as_bytes(),
            "the body is not a request: invalid type: sequence, expected an object",
        ),
    ];
    let app = TestApp::new().await;
    for (bytes, message) in rows {
        let answer = app.post(CHAT, bytes.to_vec()).await;
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (400, &json!("INVALID_REQUEST_BODY")),
            "{text:.50}"
        );
        let got = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(
            got.starts_with(message),
            "{text:.50}\n gave {got}\n  not {message}"
        );
    }
    let nested = chat(json!({})).replace("\"hello\"", &deep);
    assert_eq!(
        app.post(CHAT, nested).await.status,
        400,
        "deep where it counts"
    );
    let ignored = chat(json!({})).replacen('{', &format!("{{\"x\": {deep}, "), 1);
    assert_eq!(
        app.post(CHAT, ignored).await.status,
        200,
        "deep where nobody looks"
    );
}

/// The error for half an emoji says what it is, wherever it stands.
#[tokio::test]
async fn lone_surrogates() {
    let app = TestApp::new().await;
    let halves = [
        r"\ud83d",
        r"\ud83d x",
        r"\ude00",
        r"\ud83d\ud83d",
        r"\ud83d\n",
        r"\ud83dA",
        r"\uDFFF",
        r"x\uD800",
    ];
    for half in halves {
        for body in [
            chat(json!({})).replace("hello", half),
            chat(json!({})).replace("\"model\"", &format!("\"{half}\"")),
            format!("\"{half}\""),
        ] {
            let answer = app.post(CHAT, body.clone()).await;
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            let expected = "the body is not valid JSON: lone surrogate: half of a character that takes two \\u escapes at line 1 column";
            assert!(message.starts_with(expected), "{body}: {message}");
        }
    }
    let whole = chat(json!({})).replace("hello", r"\ud83d\ude00");
    assert_eq!(app.post(CHAT, whole).await.status, 200);
}

/// A byte order mark before the JSON is skipped.
#[tokio::test]
async fn byte_order_marks() {
    let app = TestApp::new().await;
    for (path, body) in [
        (CHAT, chat(json!({}))),
        ("/v1/completions", crate::completion(json!({}))),
        (
            "/tokenize",
            json!({"model": "sim/chat", "prompt": "a"}).to_string(),
        ),
        ("/count", chat(json!({}))),
    ] {
        let answer = app.post(path, format!("\u{feff}{body}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    // Within a text it is an ordinary character.
    let inside = json!({"model": "sim/chat", "prompt": "\u{feff}a", "return_token_strs": true});
    let answer = app.post("/tokenize", inside.to_string()).await;
    assert_eq!(answer.json()["count"], 5);
}

#[tokio::test]
async fn repeated_fields_and_content_types() {
    let app = TestApp::new().await;
    let twice = chat(json!({})).replacen('{', "{\"temperature\": 5, \"temperature\": 1, ", 1);
    assert_eq!(
        app.post(CHAT, twice).await.status,
        200,
        "the last of them counts"
    );
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "nonsense",
        "multipart/form-data",
    ] {
        let mut request = app.request(Method::POST, CHAT, chat(json!({})));
        request
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
        assert_eq!(app.send(request).await.status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_refused() {
    let app = TestApp::new().await;
    for (encoding, status) in [
        ("identity", 200),
        ("gzip", 400),
        ("br", 400),
        ("identity, gzip", 400),
        ("", 400),
    ] {
        let mut request = app.request(Method::POST, CHAT, chat(json!({})));
        request
            .headers_mut()
            .insert("content-encoding", encoding.parse().unwrap());
        assert_eq!(app.send(request).await.status, status, "{encoding}");
    }
}

/// A body of chunks that are made when they are read, and the number of chunks made so far.
fn pieces(count: usize, piece: usize) -> (Body, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let frames = stream::iter((0..count).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; piece])))
    }));
    (BodyExt::boxed(StreamBody::new(frames)), asked)
}

/// A body of 100 MB, with or without a content length, is refused as soon as its size is known, and its rest isn't
/// read.
#[tokio::test]
async fn a_huge_body() {
    const PIECE: usize = 1024 * 1024;
    let app = TestApp::new().await;
    let send = async |key: &str, length: Option<usize>| {
        let (body, asked) = pieces(100, PIECE);
        let mut request = Request::post(CHAT).header("authorization", key);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let answer = app.send(request.body(body).unwrap()).await;
        (answer.status.as_u16(), asked.load(Ordering::Relaxed))
    };
    assert_eq!(send(&app.key, None).await, (413, 17));
    assert_eq!(send(&app.key, Some(100 * PIECE)).await, (413, 0));
    assert_eq!(send(&app.key, Some(usize::MAX)).await, (413, 0));
    assert_eq!(
        send("wrong", Some(100 * PIECE)).await,
        (401, 0),
        "who has no key sends no body"
    );
    assert_eq!(send("wrong", None).await, (401, 0));
}

#[tokio::test]
async fn the_limit_is_inclusive() {
    let fitting = chat(json!({})).len();
    let options = Options {
        body_bytes_max: fitting,
        ..Options::default()
    };
    let app = TestApp::start(Setup {
        options,
        ..Setup::default()
    })
    .await;
    assert_eq!(app.post(CHAT, chat(json!({}))).await.status, 200);
    assert_eq!(app.post(CHAT, chat(json!({})) + " ").await.status, 413);
}

/// A body that stops arriving, or that takes too long, gets an answer.
#[tokio::test]
async fn a_slow_body() {
    let (short, long) = (Duration::from_millis(20), Duration::from_hours(1));
    let rows = [
        (short, long, "the body stopped arriving"),
        (long, short, "the body took too long to arrive"),
    ];
    for (body_idle_timeout, body_timeout, message) in rows {
        let options = Options {
            body_idle_timeout,
            body_timeout,
            ..Options::default()
        };
        let app = TestApp::start(Setup {
            options,
            ..Setup::default()
        })
        .await;
        let never = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let never = BodyExt::boxed(StreamBody::new(never));
        let request = Request::post(CHAT)
            .header("authorization", &app.key)
            .body(never)
            .unwrap();
        let answer = app.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["message"].as_str()),
            (400, Some(message))
        );
    }
}

/// Any JSON gets an answer, and never a 500.
#[test]
fn any_json() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let app = runtime.block_on(TestApp::new());
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(2.0)),
        Just(json!(1e300)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("user")),
        Just(json!([])),
        Just(json!([1, 2])),
        Just(json!([[1]])),
        Just(json!({})),
        Just(json!({"type": "text"})),
        Just(json!({"5": 1})),
        Just(json!([{"role": "user", "content": "a"}])),
        Just(json!(["a", "b"])),
    ];
    let field = prop::sample::select(vec![
        "model",
        "messages",
        "prompt",
        "max_tokens",
        "max_completion_tokens",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "n",
        "best_of",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "seed",
        "logprobs",
        "top_logprobs",
        "echo",
        "suffix",
        "tools",
        "tool_choice",
        "response_format",
        "modalities",
        "audio",
    ]);
    let fields = prop::collection::vec((field, value), 0..4);
    proptest!(ProptestConfig::with_cases(200), |(fields in fields, chats: bool)| {
        let (path, mut request) = if chats {
            (CHAT, json!({"model": "sim/chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}))
        } else {
            ("/v1/completions", json!({"model": "sim/plain", "prompt": "a", "max_tokens": 2}))
        };
        for (field, value) in fields {
            request[field] = value;
        }
        let answer = runtime.block_on(app.post(path, request.to_string()));
        prop_assert!([200, 400, 404].contains(&answer.status.as_u16()), "{request}: {}", answer.text());
    });
}

#[tokio::test]
async fn others_are_undisturbed() {
    let app = TestApp::new().await;
    let good = app.post(CHAT, chat(json!({"temperature": 0}))).await.json();
    let (bad, same) = tokio::join!(
        app.post(CHAT, "{"),
        app.post(CHAT, chat(json!({"temperature": 0})))
    );
    assert_eq!(bad.status, 400);
    assert_eq!(same.json()["choices"], good["choices"]);
}

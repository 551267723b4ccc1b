//! Requests that two servers might read differently are refused, and their connection ends.

use tokio::io::AsyncWriteExt;
use weir_testkit::Setup;

use crate::chat;
use crate::serve::{Server, read_to_end};

#[tokio::test]
async fn requests_with_two_meanings_are_refused() {
    let body = chat(serde_json::json!({}));
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}", body.len());
    let te = |codings: &str| format!("host: x\r\ntransfer-encoding: {codings}");
    let rows = [
        // Valid requests.
        ("host: x".to_owned() + "\r\n" + &length, &body, "200"),
        (te("chunked"), &chunked, "200"),
        (te("Chunked"), &chunked, "200"),
        // RFC 9112, 6.3: `chunked` takes precedence over a length, and the connection ends after the request.
        (te("chunked") + "\r\n" + &length, &chunked, "200"),
        (length.clone() + "\r\n" + &te("chunked"), &chunked, "200"),
        // Missing, repeated or invalid hosts.
        (length.clone(), &body, "400"),
        (format!("host: x\r\nhost: x\r\n{length}"), &body, "400"),
        (format!("host: a\r\nhost: b\r\n{length}"), &body, "400"),
        (format!("host: a b\r\n{length}"), &body, "400"),
        (format!("host: me@x\r\n{length}"), &body, "400"),
        // Ambiguous ends of the body.
        (te("chunked, chunked"), &chunked, "400"),
        (te("chunked\r\ntransfer-encoding: chunked"), &chunked, "400"),
        (te("gzip, chunked"), &chunked, "501"),
        (te("identity, chunked"), &chunked, "501"),
        (te("gzip"), &chunked, "400"),
        (te("xchunked"), &chunked, "400"),
        (te("chunked, gzip"), &chunked, "400"),
        (
            format!("host: x\r\n{length}\r\ncontent-length: 1"),
            &body,
            "400",
        ),
        (
            format!("host: x\r\ncontent-length: +{}", body.len()),
            &body,
            "400",
        ),
        (
            format!("host: x\r\ncontent-length: {0}, {0}", body.len()),
            &body,
            "400",
        ),
        (
            format!("host: x\r\ncontent-length: 0x{:x}", body.len()),
            &body,
            "400",
        ),
        (
            format!("host: x\r\n{}", length.replace(':', " :")),
            &body,
            "400",
        ),
        (
            format!("host: x\r\n{length}\r\nfolded: a\r\n b"),
            &body,
            "400",
        ),
        (format!("host: x\r\n{length}\r\nzero: a\0b"), &body, "400"),
    ];
    Server::run(Setup::default(), async |server| {
        let key = &server.app.key;
        for (headers, body, status) in rows {
            let mut stream = server.connect().await;
            // A second request, hidden behind the end of the body, must never be read.
            let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\nauthorization: {key}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all((head + body + smuggled).as_bytes()).await.unwrap();
            let answer = read_to_end(&mut stream).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_request_is_answered_as_any_other_and_ends_its_connection() {
    Server::run(Setup::default(), async |server| {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let answer = read_to_end(&mut stream).await;
        for part in [
            "HTTP/1.1 400 Bad Request\r\n",
            "connection: close\r\n",
            "x-request-id: ",
            r#""reason":"INVALID_REQUEST_BODY","message":"the header Host is missing""#,
        ] {
            assert!(answer.contains(part), "{part}: {answer}");
        }
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        let mut old = server.connect().await;
        old.write_all(b"GET /health HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let answer = read_to_end(&mut old).await;
        assert!(
            answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "),
            "{answer}"
        );
    })
    .await;
}

//! Tests with real connections: time limits, refusals that reach the client, and the two ways to stop.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_inference::sim::{SimModel, SimOptions};
use weir_server::{Options, Stop};
use weir_testkit::{Setup, TestApp, offer};

use crate::chat;

pub(crate) struct Server {
    pub(crate) app: TestApp,
    pub(crate) address: SocketAddr,
    pub(crate) stop: Stop,
}

impl Server {
    /// Runs `client` against a server, then stops the server softly and waits for its end.
    pub(crate) async fn run(setup: Setup, client: impl AsyncFnOnce(&Server)) -> TestApp {
        let app = TestApp::start(setup).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            stop: Stop::default(),
            app,
        };
        let serving = weir_server::serve(listener, server.app.app.clone(), server.stop.clone());
        let client = async {
            client(&server).await;
            server.stop.soft.cancel();
        };
        tokio::join!(serving, client);
        server.app
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) fn head(&self, length: usize) -> String {
        let key = &self.app.key;
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
        )
    }

    pub(crate) fn request(&self, body: &str) -> String {
        self.head(body.len()) + body
    }
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads until the text `end` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(end) {
        let byte = stream.read_buf(&mut text).await.unwrap();
        assert_ne!(
            byte,
            0,
            "the connection ended: {}",
            String::from_utf8_lossy(&text)
        );
    }
    String::from_utf8(text).unwrap()
}

pub(crate) fn short(options: impl FnOnce(&mut Options)) -> Setup {
    let mut setup = Setup::default();
    options(&mut setup.options);
    setup
}

#[tokio::test]
async fn two_requests_on_one_connection() {
    Server::run(Setup::default(), async |server| {
        let mut stream = server.connect().await;
        for _ in 0..2 {
            stream
                .write_all(server.request(&chat(json!({"stream": true}))).as_bytes())
                .await
                .unwrap();
            let answer = read_until(&mut stream, "[DONE]\n\n\r\n0\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    })
    .await;
}

/// HTTP/2 isn't supported: a client that begins with it gets an answer in HTTP/1.1, and the connection ends.
#[tokio::test]
async fn http2_is_refused() {
    Server::run(Setup::default(), async |server| {
        let mut stream = server.connect().await;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    })
    .await;
}

/// A client that sends 100 MB before it reads still gets the refusal, however early the server sent it.
#[tokio::test]
async fn a_refusal_arrives() {
    const LENGTH: usize = 100 * 1024 * 1024;
    Server::run(Setup::default(), async |server| {
        for (key, status) in [
            (server.app.key.as_str(), "413 Payload Too Large"),
            ("wrong", "401 Unauthorized"),
        ] {
            let mut stream = server.connect().await;
            let head = server.head(LENGTH).replace(&server.app.key, key);
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b' '; 1024 * 1024];
            for _ in 0..LENGTH / piece.len() {
                stream.write_all(&piece).await.unwrap();
            }
            let answer = read_until(&mut stream, "}}").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{answer}"
            );
        }
    })
    .await;
}

/// A client that waits for 100 Continue gets the refusal instead.
#[tokio::test]
async fn expect_100_continue() {
    Server::run(Setup::default(), async |server| {
        let mut stream = server.connect().await;
        let head = server
            .head(100_000_000)
            .replace("host: x", "host: x\r\nexpect: 100-continue");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    })
    .await;
}

/// The server cuts off clients that send nothing, the beginning of HTTP/1.1 or HTTP/2, half a head, or a head without
/// its body.
#[tokio::test]
async fn slow_clients_are_cut_off() {
    let setup = short(|options| {
        options.header_timeout = Duration::from_millis(50);
        options.body_idle_timeout = Duration::from_millis(50);
        options.linger_timeout = Duration::from_millis(50);
    });
    Server::run(setup, async |server| {
        let head = server.head(100);
        for said in [
            "",
            "P",
            "PRI * HTTP/2.0\r\n",
            "POST /v1/models HTTP/1.1\r\nhost",
            &head,
        ] {
            let mut stream = server.connect().await;
            stream.write_all(said.as_bytes()).await.unwrap();
            read_to_end(&mut stream).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let (mut setup, probe, gate) = endless();
    setup.options.connections_max = 1;
    Server::run(setup, async |server| {
        let mut first = server.connect().await;
        let request = server.request(&chat(json!({"stream": true})));
        first.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut first, "role").await;
        let mut second = server.connect().await;
        second
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        // Each chunk on the first connection gives the server time to answer on the second one.
        for _ in 0..10 {
            gate.pass(8);
            read_until(&mut first, "data: ").await;
        }
        let early = second.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        drop(first);
        gate.open();
        read_until(&mut second, "}").await;
    })
    .await;
    probe.freed().await;
}

pub(crate) fn endless() -> (Setup, weir_inference::sim::Probe, weir_inference::sim::Gate) {
    let (model, gate) = SimModel::new(SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    })
    .gated();
    let probe = model.probe();
    (
        Setup {
            offers: vec![offer("sim/chat", Some(model))],
            ..Setup::default()
        },
        probe,
        gate,
    )
}

/// Running answers finish; then their connection ends, although the client would keep it alive.
#[tokio::test]
async fn a_soft_stop_lets_streams_finish() {
    let (setup, probe, gate) = endless();
    let app = Server::run(setup, async |server| {
        let mut idle = server.connect().await;
        idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut idle, "}").await;
        let mut stream = server.connect().await;
        stream
            .write_all(server.request(&chat(json!({"stream": true}))).as_bytes())
            .await
            .unwrap();
        read_until(&mut stream, "role").await;
        server.stop.soft.cancel();
        assert_eq!(
            read_to_end(&mut idle).await,
            "",
            "idle connections end at once"
        );
        gate.open();
        assert!(read_to_end(&mut stream).await.contains("data: [DONE]\n\n"));
        assert!(
            TcpStream::connect(server.address).await.is_err(),
            "nobody listens any more"
        );
    })
    .await;
    app.app.gateway.settled().await;
    probe.freed().await;
    assert_eq!(app.accounts.account("test").await.unwrap().held.get(), 0);
}

/// A stream that is cut is charged up to where it was cut.
#[tokio::test]
async fn a_hard_stop_cuts_streams() {
    let (setup, probe, gate) = endless();
    let app = Server::run(setup, async |server| {
        let mut stream = server.connect().await;
        let body = chat(json!({"stream": true, "max_tokens": 1000}));
        stream
            .write_all(server.request(&body).as_bytes())
            .await
            .unwrap();
        read_until(&mut stream, "role").await;
        server.stop.soft.cancel();
        server.stop.hard.cancel();
        assert!(!read_to_end(&mut stream).await.contains("[DONE]"));
        gate.open();
    })
    .await;
    app.app.gateway.settled().await;
    probe.freed().await;
    assert_eq!(app.accounts.account("test").await.unwrap().held.get(), 0);
}

/// A client that hangs up in the middle frees its sequence, with and without streaming.
#[tokio::test]
async fn hang_ups() {
    for streams in [true, false] {
        let (setup, probe, gate) = endless();
        let app = Server::run(setup, async |server| {
            let mut stream = server.connect().await;
            let body = chat(json!({"stream": streams, "max_tokens": 1000}));
            stream
                .write_all(server.request(&body).as_bytes())
                .await
                .unwrap();
            gate.pass(5);
            gate.arrived(6).await;
            drop(stream);
        })
        .await;
        drop(gate);
        app.app.gateway.settled().await;
        probe.freed().await;
        assert_eq!(app.accounts.account("test").await.unwrap().held.get(), 0);
        assert!(probe.steps() < 100, "{} steps for nobody", probe.steps());
    }
}

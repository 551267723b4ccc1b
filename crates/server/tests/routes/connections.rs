//! Clients' shares of connections, and the choice of connections that are closed for others.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weir_server::{Options, TrustedProxies};

use crate::chat;
use crate::serve::{Server, endless, read_to_end, read_until, short};

impl Server {
    /// Connects from 127.0.0.`host`.
    async fn connect_from(&self, host: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        socket.bind(from).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Makes the connection busy with a stream that doesn't end before the gate is opened.
    async fn busy(&self, mut stream: TcpStream, more: &str) -> TcpStream {
        let body = chat(json!({"stream": true, "max_tokens": 1000}));
        let request = self
            .request(&body)
            .replacen("\r\n", &format!("\r\n{more}"), 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut stream, "role").await;
        stream
    }
}

/// Sends a request without a body and returns the answer.
async fn get(stream: &mut TcpStream, path: &str, more: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_answer(stream).await
}

/// Reads an answer with a content length, and nothing after it.
async fn read_answer(stream: &mut TcpStream) -> String {
    let head = read_until(stream, "\r\n\r\n").await;
    let (head, begun) = head.split_once("\r\n\r\n").unwrap();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut rest = vec![0; length - begun.len()];
    stream.read_exact(&mut rest).await.unwrap();
    format!("{head}\r\n\r\n{begun}{}", String::from_utf8(rest).unwrap())
}

async fn has_ended(stream: &mut TcpStream) -> bool {
    // A connection that was closed for another has ended by the time that the other has been served.
    matches!(stream.read_u8().await, Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof)
}

#[tokio::test]
async fn idle_connections_make_room_the_longest_idle_first() {
    let setup = short(|options| options.connections_max = 3);
    Server::run(setup, async |server| {
        let mut idle = [
            server.connect().await,
            server.connect().await,
            server.connect().await,
        ];
        for stream in &mut idle {
            get(stream, "/health", "").await;
        }
        let [mut first, mut second, mut third] = idle;
        get(&mut first, "/health", "").await;
        let mut new = server.connect().await;
        assert!(
            get(&mut new, "/health", "")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        assert!(has_ended(&mut second).await);
        for stream in [&mut first, &mut third, &mut new] {
            assert!(
                get(stream, "/health", "")
                    .await
                    .starts_with("HTTP/1.1 200 ")
            );
        }
    })
    .await;
}

/// Idle connections, with a request now and then or none at all, keep no client out.
#[tokio::test]
async fn a_crowd_of_idle_connections_shuts_nobody_out() {
    let setup = short(|options| options.connections_max = 20);
    Server::run(setup, async |server| {
        let mut crowd = Vec::new();
        for nth in 0..100 {
            let mut stream = server.connect_from(1 + nth % 9).await;
            if nth % 2 == 0 {
                get(&mut stream, "/health", "").await;
            }
            crowd.push(stream);
        }
        let mut new = server.connect_from(10).await;
        new.write_all(server.request(&chat(json!({}))).as_bytes())
            .await
            .unwrap();
        assert!(read_answer(&mut new).await.starts_with("HTTP/1.1 200 "));
        // The new client's connection has a valid key, so those without one are closed first.
        for _ in 0..50 {
            let mut other = server.connect_from(11).await;
            get(&mut other, "/health", "").await;
        }
        assert!(get(&mut new, "/health", "").await.contains("HTTP/1.1 200 "));
    })
    .await;
}

#[tokio::test]
async fn an_address_has_its_share_and_no_more() {
    let (mut setup, _probe, gate) = endless();
    setup.options.connections_per_address_max = 2;
    Server::run(setup, async |server| {
        let busy = [
            server.busy(server.connect_from(2).await, "").await,
            server.busy(server.connect_from(2).await, "").await,
        ];
        let mut more = server.connect_from(2).await;
        let models = get(&mut more, "/v1/models", "").await + &read_to_end(&mut more).await;
        assert!(models.starts_with("HTTP/1.1 429 "), "{models}");
        for part in [
            "retry-after: 1\r\n",
            "connection: close\r\n",
            "RATE_LIMIT_EXCEEDED",
        ] {
            assert!(models.contains(part), "{part}: {models}");
        }
        // `/health` is answered even without a share.
        let mut more = server.connect_from(2).await;
        assert!(
            get(&mut more, "/health", "")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        let mut other = server.connect_from(3).await;
        assert!(
            get(&mut other, "/v1/models", "")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        // `X-Forwarded-For` of a client that isn't a trusted proxy is ignored.
        let mut lying = server.connect_from(2).await;
        let answer = get(&mut lying, "/v1/models", "x-forwarded-for: 6.6.6.6\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        drop(busy);
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_has_no_share_and_its_clients_have() {
    let (mut setup, _probe, gate) = endless();
    setup.options = Options {
        connections_per_address_max: 1,
        trusted_proxies: TrustedProxies {
            networks: vec!["127.0.0.2/32".parse().unwrap()],
            ..TrustedProxies::default()
        },
        ..Options::default()
    };
    Server::run(setup, async |server| {
        let proxy = async || server.connect_from(2).await;
        let _busy = [
            server
                .busy(proxy().await, "x-forwarded-for: 192.0.2.1\r\n")
                .await,
            server
                .busy(proxy().await, "forwarded: for=192.0.2.2\r\n")
                .await,
            server.busy(proxy().await, "").await,
        ];
        for (header, status) in [
            ("x-forwarded-for: 6.6.6.6, 192.0.2.1\r\n", 429),
            ("forwarded: for=\"192.0.2.2:8080\"\r\n", 429),
            ("x-forwarded-for: 192.0.2.3\r\n", 200),
            ("", 200),
        ] {
            let answer = get(&mut proxy().await, "/v1/models", header).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{header}: {answer}"
            );
        }
        gate.open();
    })
    .await;
}

#[tokio::test]
async fn while_requests_run_everywhere_there_is_a_reserve() {
    let (mut setup, _probe, gate) = endless();
    setup.options.connections_max = 8;
    setup.options.connections_reserve = 2;
    Server::run(setup, async |server| {
        let mut busy = Vec::new();
        for _ in 0..6 {
            busy.push(server.busy(server.connect().await, "").await);
        }
        for _ in 0..20 {
            let mut probe = server.connect().await;
            let answer = get(&mut probe, "/health", "").await + &read_to_end(&mut probe).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
        }
        // The reserve serves one caller with a key, and keeps the other places for short answers.
        busy.push(server.busy(server.connect().await, "").await);
        let mut refused = server.connect().await;
        refused
            .write_all(server.request(&chat(json!({}))).as_bytes())
            .await
            .unwrap();
        let answer = read_to_end(&mut refused).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"),
            "{answer}"
        );
        // A silent connection gets a place in the reserve as well, until another connection needs it.
        let mut silent = server.connect().await;
        let mut probe = server.connect().await;
        assert!(
            get(&mut probe, "/health", "")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        assert!(has_ended(&mut silent).await);
        gate.open();
        for stream in &mut busy {
            read_until(stream, "[DONE]").await;
        }
    })
    .await;
}

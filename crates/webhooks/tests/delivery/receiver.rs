//! A receiver of webhooks with scripted answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The answer to one request. When no answers are left, 200.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    Redirect(String),
    /// No answer, and the connection stays open.
    Hang,
    Close,
    Garbage,
}

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    /// By name in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

pub(crate) struct Receiver {
    port: u16,
    received: mpsc::Receiver<Received>,
    connections: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, received) = mpsc::channel(100);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                open.spawn(serve(stream, sender.clone(), Arc::clone(&answers)));
            }
        });
        Receiver {
            port,
            received,
            connections,
            _serving: serving,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority())
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) async fn next(&mut self) -> Received {
        self.received.recv().await.unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    received: mpsc::Sender<Received>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
) {
    // A sender that was stopped meanwhile sends no complete request.
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let answer = answers.lock().unwrap().pop_front();
    received.send(request).await.unwrap();
    let text = match answer.unwrap_or(Answer::Status(200)) {
        Answer::Status(status) => {
            format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 5\r\n\r\nhello")
        }
        Answer::Redirect(to) => {
            format!("HTTP/1.1 307 Elsewhere\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
        }
        Answer::Hang => std::future::pending().await,
        Answer::Close => return,
        Answer::Garbage => "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: BTreeMap<_, _> = headers.split("\r\n").map(header).collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        line: line.to_owned(),
        headers,
        body: String::from_utf8(bytes[end + 4..].to_vec()).unwrap(),
    })
}

//! A running server for a test.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::weir;

/// A server process that is killed when the value is dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) url: String,
    /// The key of the account `demo`, if this was the first start.
    pub(crate) key: Option<String>,
    events: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Server {
    /// Starts a server and waits until it is ready. Its log goes to the file `log`.
    pub(crate) fn start(at: &Path, config: &str, adjust: impl FnOnce(&mut Command)) -> Self {
        std::fs::write(at.join("weir.toml"), config).unwrap();
        let log = at.join("log");
        let stderr = std::fs::File::create(&log).unwrap();
        let mut command = weir(at);
        command
            .args(["serve", "--json"])
            .stdout(Stdio::piped())
            .stderr(stderr);
        adjust(&mut command);
        let mut process = command.spawn().unwrap();
        let events = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut server = Server {
            process,
            url: String::new(),
            key: None,
            events,
            log,
        };
        let mut event = server.event();
        if event["event"] == "first_start" {
            server.key = event["key"].as_str().map(str::to_owned);
            event = server.event();
        }
        assert_eq!(event["event"], "ready");
        server.url = event["url"].as_str().unwrap().to_owned();
        server
    }

    pub(crate) fn event(&mut self) -> Value {
        let line = self.events.next();
        let Some(line) = line else {
            panic!("the server has ended: {}", self.log());
        };
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Sends a request without a key, and returns the answer.
    pub(crate) fn get(&self, path: &str) -> String {
        use std::io::Write;
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

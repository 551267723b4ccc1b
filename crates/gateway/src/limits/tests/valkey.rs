//! A Valkey or Redis server for one test, on a socket in a temporary directory that is removed with it.

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Program files, and the name (`argv[0]`) to run each by. Debian's tools packages contain the server as `…-check-rdb`:
/// the program only checks files if it is called by that name.
const SERVERS: [(&str, &str); 4] = [
    ("valkey-server", "valkey-server"),
    ("redis-server", "redis-server"),
    ("valkey-check-rdb", "valkey-server"),
    ("redis-check-rdb", "redis-server"),
];

#[derive(Debug)]
pub(super) struct Valkey {
    server: Server,
    directory: TempDir,
}

#[derive(Debug)]
struct Server {
    server: Child,
    /// A process that ends the server when the test's process is gone, however it ended.
    watchdog: Child,
}

impl Valkey {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = serve(directory.path());
        Valkey { server, directory }
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", socket(self.directory.path()).display())
    }

    /// Kills the server, as a power failure would.
    pub(super) fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the server again, with no data.
    pub(super) fn restart(&mut self) {
        self.server = serve(self.directory.path());
    }

    /// Sends the server a signal. After `-STOP` it neither answers nor closes connections until `-CONT`.
    pub(super) fn signal(&self, signal: &str) {
        let id = self.server.server.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Server {
    fn kill(&mut self) {
        // The watchdog first: it must not find another process with the server's id.
        for child in [&mut self.watchdog, &mut self.server] {
            // The process may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// Starts the server, and returns when it accepts connections.
fn serve(directory: &Path) -> Server {
    let started = SERVERS.iter().find_map(|&(file, name)| {
        let mut server = Command::new(file);
        server
            .arg0(name)
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--unixsocket"])
            .arg(socket(directory))
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::piped());
        match server.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            spawned => Some(spawned.unwrap()),
        }
    });
    let mut server = started.expect("Valkey or Redis; `scripts/setup.sh test` installs it");
    let watchdog = Command::new("sh")
        .args(["-c", "cat >/dev/null; kill -9 \"$0\""])
        .arg(server.id().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Redis 7.0 prints "The server is now ready…", later versions and Valkey "Ready…".
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = said.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("eady to accept connections"))
    });
    assert!(ready.is_some(), "the store does not start");
    Server { server, watchdog }
}

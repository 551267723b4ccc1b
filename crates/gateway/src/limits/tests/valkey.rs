//! A Valkey or Redis of a test's own: on a socket in a directory of its own, gone with it.

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The server's names. Debian's packages of tools have it, too, under a name by which it only checks
/// files; it goes by what it is called.
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
    /// Ends the server when the test's process is gone, however it ended.
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

    /// As a machine that loses its power does.
    pub(super) fn kill(&mut self) {
        self.server.kill();
    }

    /// Again, and empty.
    pub(super) fn restart(&mut self) {
        self.server = serve(self.directory.path());
    }

    /// Stopped, it neither answers nor hangs up until it is told to go on.
    pub(super) fn signal(&self, signal: &str) {
        let id = self.server.server.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Server {
    fn kill(&mut self) {
        // The watchdog first: it must not find another process by that number.
        for child in [&mut self.watchdog, &mut self.server] {
            // It may have ended already.
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

/// Starts the server, and returns when it listens.
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
    // Redis 7.0: "The server is now ready…", later ones and Valkey: "Ready…".
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = said.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("eady to accept connections"))
    });
    assert!(ready.is_some(), "the store does not start");
    Server { server, watchdog }
}

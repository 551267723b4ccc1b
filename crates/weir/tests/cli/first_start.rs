//! The account of the first start: made only if it is wanted, and never with a key that wasn't seen.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::server::Server;
use crate::{WITHOUT_ITS_MODEL, json, weir};

#[test]
fn without_a_word_nobody_gets_money() {
    let home = TempDir::new().unwrap();
    let config = WITHOUT_ITS_MODEL.replace("demo = true\n", "");
    let mut server = Server::start(home.path(), &config, |_| {});
    assert_eq!(server.key, None);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(
        server.log().contains("there is no account yet"),
        "{}",
        server.log()
    );
    assert_eq!(json(home.path(), "account list"), value!([]));
}

/// Starts a server with this stdout, and waits until its log says that it is ready.
fn serve_into(at: &Path, stdout: File, journal_stream: Option<String>) -> Child {
    std::fs::write(at.join("weir.toml"), WITHOUT_ITS_MODEL).unwrap();
    let log = File::create(at.join("log")).unwrap();
    let mut command = weir(at);
    command.args(["serve"]).stdout(stdout).stderr(log);
    command.env_remove("JOURNAL_STREAM");
    if let Some(stream) = journal_stream {
        command.env("JOURNAL_STREAM", stream);
    }
    command.spawn().unwrap()
}

fn terminate(mut server: Child) {
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
}

/// The keys of the account `demo`; waits until it has some.
fn keys(at: &Path) -> Vec<Value> {
    loop {
        let list = crate::run(at, "key list demo --json");
        match serde_json::from_slice::<Value>(&list.stdout) {
            Ok(Value::Array(keys)) if !keys.is_empty() => return keys,
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn where_stdout_is_no_place_for_it_the_key_is_in_a_file() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let home = TempDir::new().unwrap();
    let journal = File::create(home.path().join("journal")).unwrap();
    let of_journal = journal.metadata().unwrap();
    let stream = format!("{}:{}", of_journal.dev(), of_journal.ino());
    for (place, stdout, journal_stream) in [
        ("/dev/full", full, None),
        ("/dev/null", null, None),
        ("a pipe without a reader", File::from(writer), None),
        ("the journal", journal, Some(stream)),
    ] {
        let home = TempDir::new().unwrap();
        let at = home.path();
        let server = serve_into(at, stdout, journal_stream);
        let [key] = &keys(at)[..] else {
            panic!("{place}: one key is made")
        };
        let path = at.join("data/demo-key");
        let secret = std::fs::read_to_string(&path).unwrap();
        let id = key["id"].as_str().unwrap();
        assert!(secret.starts_with(&format!("sk_{id}_")), "{place}");
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{place}"
        );
        terminate(server);
        let log = std::fs::read_to_string(at.join("log")).unwrap();
        assert!(
            log.contains("demo-key") && !log.contains("sk_"),
            "{place}: {log}"
        );
    }
    let journal = std::fs::read_to_string(home.path().join("journal")).unwrap();
    assert!(!journal.contains("sk_"), "{journal}");
}

#[test]
fn a_file_gets_the_key_as_a_terminal_would() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    let stdout = at.join("stdout");
    let server = serve_into(at, File::create(&stdout).unwrap(), Some("1:1".to_owned()));
    let keys = keys(at);
    let id = keys[0]["id"].as_str().unwrap().to_owned();
    terminate(server);
    let said = std::fs::read_to_string(stdout).unwrap();
    assert!(
        said.contains(&format!("export WEIR_API_KEY=sk_{id}_")),
        "{said}"
    );
    assert!(!at.join("data/demo-key").exists());
}

//! Secrets that are shown once: a lost secret never becomes valid, and the exit status tells.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{json, weir};

/// Kinds of stdout that lose a secret.
fn lost() -> [(&'static str, Stdio); 3] {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let file = |path| Stdio::from(File::options().write(true).open(path).unwrap());
    [
        ("a pipe without a reader", Stdio::from(writer)),
        ("/dev/full", file("/dev/full")),
        ("/dev/null", file("/dev/null")),
    ]
}

fn run_into(at: &Path, arguments: &str, stdout: Stdio) -> Output {
    let command = weir(at)
        .args(arguments.split_whitespace())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn();
    command.unwrap().wait_with_output().unwrap()
}

#[test]
fn a_key_that_nobody_saw_is_not_made() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    for more in ["", "--json"] {
        for (place, stdout) in lost() {
            let output = run_into(at, &format!("key add alice --data d {more}"), stdout);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{place}: {said}");
            assert!(
                said.contains("can't be shown") && said.contains("it was not made"),
                "{place}: {said}"
            );
            assert!(!said.contains("sk_"), "{place}: {said}");
        }
    }
    assert_eq!(
        json(at, "key list alice --data d"),
        Value::Array(Vec::new())
    );
}

#[test]
fn a_secret_that_nobody_saw_replaces_none() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    let key = json(at, "key add alice --data d");
    let id = key["id"].as_str().unwrap();
    let shown = || json(at, &format!("key show {id} --data d"));
    let before = shown();
    for (place, stdout) in lost() {
        let output = run_into(at, &format!("key rotate {id} --grace 0s --data d"), stdout);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{place}: {said}");
        assert!(
            said.contains(id) && said.contains("it keeps the secret"),
            "{place}: {said}"
        );
    }
    assert_eq!(shown(), before);
    json(at, &format!("key revoke {id} --data d"));
    let output = run_into(at, &format!("key rotate {id} --data d"), Stdio::piped());
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(1), 0),
        "no secret of a revoked key"
    );
}

/// A reader that takes the first line and closes the pipe has seen the key.
#[test]
fn a_key_that_was_read_is_made() {
    use std::io::Read;
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let reading = std::thread::spawn(move || {
        let mut line = [0; 60];
        File::from(reader).read_exact(&mut line).unwrap();
        line
    });
    let output = run_into(at, "key add alice --data d", Stdio::from(writer));
    assert!(output.status.success());
    assert!(reading.join().unwrap().starts_with(b"sk_"));
    assert_eq!(
        json(at, "key list alice --data d")
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// The output of a read-only command may be read in part; a change must be known to have been made.
#[test]
fn a_broken_pipe_is_harmless_for_commands_that_only_read() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 1 --data d");
    let rows = [
        ("account list", 0),
        ("account show alice", 0),
        ("key list alice", 0),
        ("usage alice", 0),
        ("usage export", 0),
        ("audit", 0),
        ("ledger verify", 0),
        ("config", 0),
        ("account add bob", 1),
        ("account suspend alice --reason x", 1),
        ("credit alice 1", 1),
        ("promo alice 1 --expires 1d", 1),
        ("adjust alice 1 --reason x", 1),
    ];
    for (arguments, status) in rows {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop::<OwnedFd>(reader);
        let output = run_into(at, &format!("{arguments} --data d"), Stdio::from(writer));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments}: {said}");
        assert_eq!(
            said.contains("it was done"),
            status == 1,
            "{arguments}: {said}"
        );
    }
    assert_eq!(json(at, "account show alice --data d")["balance"], "4");
}

/// A command does its work even if its notes on stderr can't be written.
#[test]
fn notes_that_cannot_be_written_change_nothing() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let output = weir(at)
        .args(["key", "add", "alice"])
        .env("WEIR_DATA", "d")
        .env("WEIR_NONSENSE", "a warning before everything else")
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"sk_"));
    assert_eq!(
        json(at, "key list alice --data d")
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

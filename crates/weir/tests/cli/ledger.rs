//! `weir ledger verify`, and the check at a server's start, find errors in the books.

use std::path::Path;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::Server;
use super::{WITHOUT_ITS_MODEL, fails, json, run};

/// Changes tables behind the ledger's back, as a person with access to the file could.
fn tamper(database: &Path, sql: &str) {
    let raw = Connection::open(database).unwrap();
    raw.execute_batch(
        "PRAGMA foreign_keys = OFF; DROP TRIGGER entry_no_update; DROP TRIGGER entry_no_delete",
    )
    .unwrap();
    assert_ne!(raw.execute(sql, []).unwrap(), 0, "{sql} changed nothing");
}

#[test]
fn books_that_balance_are_0() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 2.50 --data d");
    let clean = json(at, "ledger verify --data d");
    assert_eq!(clean, json!({"differences": []}));
    let said = run(at, "ledger verify --data d");
    assert_eq!(said.status.code(), Some(0));
    assert_eq!(said.stdout, b"the books balance\n");
}

#[test]
fn differences_are_named_and_1() {
    let check = |sql: &str, named: &[&str]| {
        let home = TempDir::new().unwrap();
        let at = home.path();
        json(at, "account add alice --credit 2.50 --data d");
        tamper(&at.join("d/weir.db"), sql);
        let said = run(at, "ledger verify --data d");
        let lines = String::from_utf8(said.stdout).unwrap();
        assert_eq!(said.status.code(), Some(1), "{sql}: {lines}");
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines.len(), named.len(), "{sql}: {lines:#?}");
        for named in named {
            let found = lines.iter().any(|line| line.contains(named));
            assert!(found, "{sql}: {lines:#?}");
        }
        let said = run(at, "ledger verify --json --data d");
        assert_eq!(said.status.code(), Some(1), "{sql}");
        let data: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(data, json!({"differences": lines}));
    };
    check(
        "UPDATE balance SET posted = posted + 1",
        &[
            "the balance says 2.500000001 posted and 0 held, the entries 2.5 in the wallet",
            "the balance says that posted is 2.500000001, its last transaction 2.5",
        ],
    );
    check(
        "UPDATE entry SET amount = amount - 1 WHERE book = 'funding'",
        &["its entries sum to -0.000000001, not 0"],
    );
    check(
        "DELETE FROM entry",
        &["a credit without entries", "the entries 0 in the wallet"],
    );
}

#[test]
fn what_cannot_be_told_is_2() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    fails(at, "ledger verify --data d", 2, "there is no database in d");
    json(at, "account add alice --data d");
    tamper(
        &at.join("d/weir.db"),
        "UPDATE migration SET version = 1000 + version",
    );
    fails(at, "ledger verify --data d", 2, "newer");
    std::fs::write(at.join("d/weir.db"), "x".repeat(5_000)).unwrap();
    fails(at, "ledger verify --data d", 2, "can't open");
    fails(at, "ledger verify --frobnicate", 2, "--frobnicate");
}

/// At its start a server logs errors in the books, and serves all the same.
#[test]
fn a_start_logs_each_difference() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 2.50");
    assert_eq!(logged(at), [""; 0]);
    tamper(
        &at.join("data/weir.db"),
        "UPDATE balance SET posted = posted + 1, held = 2",
    );
    let lines = logged(at);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let account = &json(at, "account list")[0]["id"];
    let account = account.as_str().unwrap();
    for (line, difference) in lines.iter().zip([
        "the balance says that posted is 2.500000001, its last transaction 2.5",
        "the balance says that held is 0.000000002, its open holds 0",
    ]) {
        let said = format!("the books don't balance: account {account}: {difference}");
        assert!(line.contains("ERROR") && line.contains(&said), "{line}");
    }
}

/// The lines about the books that a server logs at its start.
fn logged(at: &Path) -> Vec<String> {
    let mut server = Server::start(at, WITHOUT_ITS_MODEL, |_| {});
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let log = server.log();
    let books = log.lines().filter(|line| line.contains("books"));
    books.map(str::to_owned).collect()
}

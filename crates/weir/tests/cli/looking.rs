//! The operator's views: balances, the ledger, all keys, the server's state, and the end of an account.

use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::server::Server;
use crate::{WITHOUT_ITS_MODEL, fails, json, run, weir};

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn balances_and_bookings_are_shown() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 2.50 --data d");
    json(at, "account add bob --data d");
    json(at, "promo alice 1 --expires 30d --reason welcome --data d");
    json(at, "adjust bob 0.25 --reason gift --data d");
    assert_eq!(
        json(at, "balance alice --data d"),
        value!({"name": "alice", "balance": "3.5", "held": "0", "available": "3.5", "promo": "1", "credit_limit": "0"})
    );
    let table = String::from_utf8(run(at, "balance alice --data d").stdout).unwrap();
    assert!(
        table.contains("balance") && table.contains("3.5"),
        "{table}"
    );
    fails(at, "balance carol --data d", 1, "carol");

    let of_alice = json(at, "ledger show alice --data d");
    let kinds: Vec<_> = rows(&of_alice).iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, ["promo", "credit"]);
    assert_eq!(of_alice[0]["reason"], "welcome");
    assert_eq!(rows(&of_alice[0]["entries"]).len(), 2);
    let all = json(at, "ledger show --data d");
    assert_eq!(rows(&all).len(), 3);
    let before = all[0]["id"].as_i64().unwrap();
    let older = json(
        at,
        &format!("ledger show --before {before} --limit 1 --data d"),
    );
    assert_eq!(rows(&older), &rows(&all)[1..2]);
    let table = String::from_utf8(run(at, "ledger show alice --data d").stdout).unwrap();
    assert!(
        table.contains("promotion -1, promo 1") || table.contains("promo 1, promotion -1"),
        "{table}"
    );
}

#[test]
fn keys_of_all_accounts_are_listed() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    for name in ["bob", "alice"] {
        json(at, &format!("account add {name} --data d"));
        json(at, &format!("key add {name} --name of-{name} --data d"));
    }
    let keys = json(at, "key list --data d");
    let shown = |key: &Value| (key["account_name"].clone(), key["name"].clone());
    let shown: Vec<_> = rows(&keys).iter().map(shown).collect();
    assert_eq!(
        shown,
        [
            ("alice".into(), "of-alice".into()),
            ("bob".into(), "of-bob".into())
        ]
    );
    let table = String::from_utf8(run(at, "key list --data d").stdout).unwrap();
    assert!(
        table.starts_with("ACCOUNT") && table.contains("of-bob"),
        "{table}"
    );
    assert_eq!(rows(&json(at, "key list bob --data d")).len(), 1);
}

#[test]
fn an_account_is_deleted() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    let id = json(at, "account add alice --credit 2 --data d")["id"].clone();
    let id = id.as_str().unwrap();
    json(at, "key add alice --data d");
    fails(
        at,
        "account delete alice --data d",
        1,
        "a balance of 2 USD: adjust it to 0, or write it off; `--write-off` does",
    );
    let deleted = json(
        at,
        "account delete alice --write-off --reason closed --data d",
    );
    assert_eq!(
        (&deleted["balance"], deleted["deleted_at"].is_string()),
        (&"0".into(), true)
    );
    assert_eq!(json(at, "account list --data d"), value!([]));
    assert_eq!(
        json(at, "account list --deleted --data d")[0]["name"],
        format!("alice~{id}")
    );
    assert!(json(at, &format!("key list {id} --data d"))[0]["revoked_at"].is_string());
    assert_eq!(
        json(at, &format!("ledger show {id} --data d"))[0]["reason"],
        "closed"
    );
    assert_eq!(
        json(at, &format!("audit {id} --data d"))[0]["act"],
        "account.delete"
    );
    fails(at, &format!("credit {id} 1 --data d"), 1, "is deleted");
    fails(at, "account show alice --data d", 1, "alice");
    json(at, "account add alice --data d");
    assert_eq!(
        json(at, "ledger verify --data d"),
        value!({"differences": []})
    );
}

#[test]
fn the_state_of_the_server_is_told() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    std::fs::write(at.join("weir.toml"), WITHOUT_ITS_MODEL).unwrap();
    let status = |listen: &str| {
        let output = weir(at)
            .args(["status", "--json"])
            .env("WEIR_LISTEN", listen)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "no model is there");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let nothing = status("127.0.0.1:1");
    assert_eq!(nothing["server"], "not running");
    assert!(
        nothing["database_error"]
            .as_str()
            .unwrap()
            .contains("there is no database")
    );
    let server = Server::start(at, WITHOUT_ITS_MODEL, |_| {});
    let running = status(server.url.strip_prefix("http://").unwrap());
    assert_eq!(
        [
            &running["server"],
            &running["models"],
            &running["accounts"],
            &running["balance"]
        ],
        [
            &"not ready".into(),
            &value!([{"id": "m", "available": false}]),
            &1.into(),
            &"5".into()
        ]
    );
    let shown = run(at, "status");
    assert!(
        String::from_utf8(shown.stdout)
            .unwrap()
            .contains("not running")
    );
}

/// Texts that are refused today but may be in older databases can't control the terminal.
#[test]
fn strange_names_are_refused_and_shown_as_escapes() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    for name in [
        "a\u{1b}[31m",
        "a\u{202e}b",
        "a\u{200b}b",
        "a\u{9b}b",
        "a\u{2028}b",
    ] {
        let output = weir(at)
            .args(["key", "add", "alice", "--data", "d", "--name", name])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name:?}");
        assert!(
            said.contains("bidirectional or invisible") && output.stdout.is_empty(),
            "{said}"
        );
        let output = weir(at)
            .args([
                "account", "suspend", "alice", "--data", "d", "--reason", name,
            ])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{name:?}");
    }
    let key = json(at, "key add alice --name plain --data d");
    let raw = rusqlite::Connection::open(at.join("d/weir.db")).unwrap();
    let name = "x\u{1b}]0;owned\u{7}\u{202e}y";
    raw.execute("UPDATE api_key SET name = ?1", [name]).unwrap();
    let id = key["id"].as_str().unwrap();
    for arguments in [
        "key list alice",
        "key list",
        &format!("key show {id}"),
        "key list --json",
    ] {
        let shown = run(at, &format!("{arguments} --data d")).stdout;
        let shown = String::from_utf8(shown).unwrap();
        assert!(
            !shown.contains(['\u{1b}', '\u{7}', '\u{202e}']),
            "{arguments}: {shown}"
        );
        assert!(shown.contains("owned"), "{arguments}: {shown}");
    }
    assert_eq!(
        json(at, "key list alice --data d")[0]["name"],
        name,
        "the value is the same"
    );
}

#[test]
fn listening_on_all_addresses_is_a_warning() {
    let home = TempDir::new().unwrap();
    for (listen, warned) in [
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("127.0.0.1:0", false),
    ] {
        let config = WITHOUT_ITS_MODEL.replace("127.0.0.1:0", listen);
        let mut server = Server::start(home.path(), &config, |_| {});
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait().success());
        assert_eq!(server.log().contains("without TLS"), warned, "{listen}");
    }
}

//! The program from outside, without a model: commands, exit statuses, and a server that starts and stops.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail with the test")]

mod export;
mod first_start;
mod ledger;
mod looking;
mod reload;
mod secrets;
mod server;
mod signals;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::server::Server;

fn weir(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command
}

fn run(directory: &Path, arguments: &str) -> Output {
    weir(directory)
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

/// The JSON that a command prints with `--json`.
#[track_caller]
fn json(directory: &Path, arguments: &str) -> Value {
    let output = run(directory, &format!("{arguments} --json"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(directory: &Path, arguments: &str, status: i32, words: &str) {
    let output = run(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments}: {errors}");
    assert!(errors.contains(words), "{arguments}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments} printed data");
}

#[test]
fn accounts_credit_and_keys() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    let account = json(at, "account add alice --credit 2.50 --data d");
    assert_eq!(account["balance"], "2.5");
    assert_eq!(
        json(at, "credit alice 0.000000001 --data d")["balance"],
        "2.500000001"
    );
    let paid = |reference| {
        json(
            at,
            &format!("credit alice 1 --reference {reference} --data d"),
        )
    };
    assert_eq!(
        [
            &paid("a")["replayed"],
            &paid("a")["replayed"],
            &paid("b")["replayed"]
        ],
        [false, true, false]
    );
    assert_eq!(
        json(at, "account list --data d")[0]["available"],
        "4.500000001"
    );

    let key = json(at, "key add alice --name laptop --data d");
    assert!(key["key"].as_str().unwrap().starts_with("sk_"));
    let id = key["id"].as_str().unwrap();
    assert_eq!(
        json(at, "key list alice --data d")[0]["revoked_at"],
        Value::Null
    );
    assert!(json(at, &format!("key revoke {id} --data d"))["revoked_at"].is_string());
    assert_eq!(json(at, "usage alice --data d"), Value::Array(Vec::new()));
    let listed = String::from_utf8(run(at, "key list alice --data d").stdout).unwrap();
    assert!(listed.contains("laptop") && !listed.contains(key["key"].as_str().unwrap()));
}

#[test]
fn accounts_and_keys_are_changed() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 10 --data d");
    let account = json(
        at,
        "account set alice --name ada --credit-limit 5 --low-balance 1 --tier T2 --tokens-per-minute 9 --data d",
    );
    let shown = json(at, "account show ada --data d");
    assert_eq!(account, shown);
    assert_eq!(
        [
            &shown["available"],
            &shown["credit_limit"],
            &shown["tier"],
            &shown["low_balance"]
        ],
        ["15", "5", "T2", "1"]
    );
    let account = json(
        at,
        "account set ada --tier none --low-balance none --data d",
    );
    assert_eq!(account["tokens_per_minute"], 9);
    assert_eq!(
        [&account["tier"], &account["low_balance"]],
        [&Value::Null; 2]
    );
    let of_model = |options: &str| {
        let account = json(
            at,
            &format!("account set ada --model org/m {options} --data d"),
        );
        assert_eq!(account["tokens_per_minute"], 9);
        account["model_limits"].clone()
    };
    assert_eq!(
        of_model("--requests-per-minute 5 --concurrent-requests 2"),
        serde_json::json!({"org/m": {"requests_per_minute": 5, "tokens_per_minute": null, "concurrent_requests": 2}})
    );
    assert_eq!(
        of_model("--tokens-per-minute 7")["org/m"]["concurrent_requests"],
        2
    );
    let none = "--requests-per-minute none --tokens-per-minute none --concurrent-requests none";
    assert_eq!(of_model(none), serde_json::json!({}));
    fails(
        at,
        "account set ada --model org/m --data d",
        2,
        "--requests-per-minute",
    );
    let suspended = json(at, "account suspend ada --reason unpaid --data d");
    assert_eq!(suspended["suspended_reason"], "unpaid");
    let resumed = json(at, "account resume ada --data d");
    assert_eq!(resumed["suspended_since"], Value::Null);
    fails(
        at,
        "account set ada --tier T9 --data d",
        2,
        "a tier is one of",
    );
    fails(at, "account suspend ada --data d", 2, "--reason");

    let key = json(
        at,
        "key add ada --role viewer --model a --model b --cap 3 --cap-day 0.5 --expires 2099-01-01T00:00:00Z --data d",
    );
    let id = key["id"].as_str().unwrap();
    let key = |options: &str| json(at, &format!("key {options} --data d"));
    let shown = key(&format!("show {id}"));
    assert_eq!(
        [
            &shown["role"],
            &shown["cap"],
            &shown["cap_day"],
            &shown["expires_at"]
        ],
        ["viewer", "3", "0.5", "2099-01-01T00:00:00Z"]
    );
    assert_eq!(shown["models"], serde_json::json!(["a", "b"]));
    let set = key(&format!(
        "set {id} --any-model --cap none --expires none --name ci"
    ));
    assert_eq!(
        [&set["models"], &set["cap"], &set["expires_at"]],
        [&Value::Null; 3]
    );
    assert_eq!([&set["cap_day"], &set["name"]], ["0.5", "ci"]);
    let rotated = key(&format!("rotate {id} --grace 1h"));
    assert_eq!(rotated["id"], id);
    assert!(key(&format!("show {id}"))["old_secret_until"].is_string());
    fails(
        at,
        &format!("key rotate {id} --grace 31d --data d"),
        1,
        "30 days",
    );
    fails(at, "key add ada --role root --data d", 2, "a role is");
    fails(at, "key add ada --cap=-1 --data d", 1, "can't be negative");
    fails(at, "key set nokey --name x --data d", 1, "nokey");
}

#[test]
fn money_is_moved_and_every_act_is_told() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --credit 10 --data d");
    let promo = json(at, "promo alice 2 --expires 30d --reference g --data d");
    assert_eq!([&promo["amount"], &promo["balance"]], ["2", "12"]);
    assert_eq!(json(at, "account show alice --data d")["promo"], "2");
    let adjust = "adjust alice -0.5 --reason twice --reference a --data d";
    assert_eq!(json(at, adjust)["balance"], "11.5");
    assert_eq!(json(at, adjust)["replayed"], true);
    let again = run(at, adjust);
    assert_eq!(
        String::from_utf8_lossy(&again.stdout),
        "alice was adjusted by -0.5 USD by this reference before, and nothing is changed; the balance was 11.5 USD then\n"
    );
    fails(
        at,
        "adjust alice -0.5 --reason thrice --reference a --data d",
        1,
        "the reference \"a\" was used for something else",
    );
    for reference in [String::new(), "x".repeat(201)] {
        fails(
            at,
            &format!("credit alice 1 --reference={reference} --data d"),
            1,
            "weir: a reference has 1 to 200 characters and no control",
        );
    }
    fails(
        at,
        "adjust alice -11 --reason much --data d",
        1,
        "9.5 USD of cash",
    );
    fails(at, "adjust alice 1 --data d", 2, "--reason");
    fails(
        at,
        "promo alice 1 --expires never --data d",
        2,
        "a time is such as",
    );
    fails(
        at,
        "refund nosuch --reason bad --data d",
        1,
        "no charged request",
    );

    let log = json(at, "audit alice --data d");
    let acts: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|record| &record["act"])
        .collect();
    assert_eq!(
        acts,
        [
            "credit.adjust",
            "credit.promo",
            "credit.top_up",
            "account.add"
        ]
    );
    assert_eq!(log[0]["after"]["reason"], "twice");
    assert!(log[0]["actor"].as_str().unwrap().starts_with("cli:"));
    let before = log[1]["id"].as_i64().unwrap();
    let older = json(at, &format!("audit --before {before} --limit 1 --data d"));
    assert_eq!(older.as_array().unwrap().len(), 1);
    assert_eq!(older[0]["act"], "credit.top_up");
}

#[test]
fn failures_have_a_status_and_a_message() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    fails(at, "", 2, "Usage");
    fails(at, "frobnicate", 2, "unrecognized subcommand");
    fails(
        at,
        "credit alice 1.5e3 --data d",
        2,
        "an amount is dollars like",
    );
    fails(at, "account list --data d", 1, "there is no database in d");
    fails(at, "account list --config no.toml", 2, "can't read");
    fails(at, "serve", 2, "`make models`");
    json(at, "account add alice --data d");
    fails(
        at,
        "account add alice --data d",
        1,
        "there is an account named",
    );
    fails(at, "credit bob 1 --data d", 1, "bob");
    fails(at, "key revoke nokey --data d", 1, "nokey");
    std::fs::write(at.join("weir.toml"), "\nlisen = 1\n").unwrap();
    fails(at, "account list", 2, "weir.toml:2: unknown key `lisen`");
    fails(at, "config check", 2, "weir.toml:2: unknown key `lisen`");
    fails(at, "serve --listen localhost", 2, "an address has a port");
    fails(at, "serve --host example.com", 2, "a host is an address");
    fails(at, "serve --listen 1 --port 2", 2, "cannot be used with");
}

#[test]
fn an_error_names_its_place_once() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    std::fs::create_dir(at.join("junk")).unwrap();
    std::fs::write(at.join("junk/weir.db"), "no database").unwrap();
    std::fs::create_dir_all(at.join("folder/weir.db")).unwrap();
    std::fs::write(at.join("plain"), "").unwrap();
    for place in ["junk", "folder", "plain"] {
        let output = run(at, &format!("ledger verify --data {place}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.matches(place).count(), 1, "{errors}");
    }
    let dangling = "a.toml";
    std::os::unix::fs::symlink("nowhere", at.join(dangling)).unwrap();
    for (config, said) in [
        ("no.toml", "No such file"),
        (dangling, "is a link to nowhere"),
    ] {
        let output = run(at, &format!("config check --config {config}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(said), "{errors}");
        assert_eq!(errors.matches(config).count(), 1, "{errors}");
    }
}

#[test]
fn options_of_serve_win_over_the_config() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("mine.gguf"), "not a model").unwrap();
    let config = WITHOUT_ITS_MODEL.replace("127.0.0.1:0", "0.0.0.0:1");
    for (options, model) in [
        (&["--host", "localhost", "--port", "0"][..], "m"),
        (&["--listen", ":0"], "m"),
        (&["--listen", "localhost:0", "--model", "mine.gguf"], "mine"),
    ] {
        let server = Server::start(home.path(), &config, |command| {
            command.args(options);
        });
        assert!(server.url.starts_with("http://127.0.0.1:"), "{options:?}");
        let models = server.get("/v1/models");
        assert!(models.contains(&format!(r#""id":"{model}""#)), "{models}");
    }
}

#[test]
fn a_config_is_checked() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    assert_eq!(json(at, "config check")["file"], Value::Null);
    std::fs::write(at.join("weir.toml"), WITHOUT_ITS_MODEL).unwrap();
    let file = at.join("weir.toml").display().to_string();
    assert_eq!(json(at, "config check")["file"], *file);
    let output = run(at, "config check");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, format!("{file} is right\n"));
    assert!(!at.join("data").exists(), "nothing is started");
}

/// A config whose only model is missing. The first start makes the account `demo`.
const WITHOUT_ITS_MODEL: &str = "listen = \"127.0.0.1:0\"\ndemo = true\n[[models]]\nid = \"m\"\ninput_price = 0\noutput_price = 0\n\
     [[models.engines]]\npath = \"missing.gguf\"\n";

/// A server whose only model is missing starts, logs that, and stops when it is told to.
#[test]
fn a_server_without_its_model_starts_and_stops() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    for first_start in [true, false] {
        let mut server = Server::start(at, WITHOUT_ITS_MODEL, |_| {});
        assert_eq!(server.key.is_some(), first_start);
        assert!(server.url.starts_with("http://127.0.0.1:"));
        assert_eq!(json(at, "account list")[0]["balance"], "5");
        fails(
            at,
            "serve --listen 127.0.0.1:0",
            1,
            "another weir server uses",
        );
        server.signal(Signal::TERM);
        assert_eq!(server.event()["event"], "draining");
        assert!(server.wait().success());
    }
}

/// A misspelt model is told of where the config is known; the key is made, as the model may be offered later.
#[test]
fn a_model_that_the_config_does_not_offer_is_warned_of() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    std::fs::write(at.join("weir.toml"), WITHOUT_ITS_MODEL).unwrap();
    json(at, "account add alice");
    let said = |arguments: &str| {
        let output = run(at, arguments);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let warning = "weir: warning: the config has no model \"zz\"; its models are m\n";
    let limits = "account set alice --requests-per-minute 5 --model";
    assert_eq!(said("key add alice --json --model zz --model m"), warning);
    assert_eq!(said(&format!("{limits} zz")), warning);
    for known in [
        "key add alice --json --model m".to_owned(),
        "key add alice --json --model zz --data data".to_owned(),
        format!("{limits} m"),
    ] {
        assert_eq!(said(&known), "", "{known}");
    }
}

/// A time that isn't later than now makes no key, and shows no secret.
#[test]
fn a_key_that_has_expired_is_not_made() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    const REFUSED: &str = "weir: a key must expire later than now";
    for expires in ["0s", "2001-01-01T00:00:00Z"] {
        let add = format!("key add alice --expires {expires} --data d");
        fails(at, &add, 1, REFUSED);
    }
    let key = json(at, "key add alice --expires 30d --data d");
    let id = key["id"].as_str().unwrap();
    fails(
        at,
        &format!("key set {id} --expires 0s --data d"),
        1,
        REFUSED,
    );
    assert_eq!(json(at, "key list --data d").as_array().unwrap().len(), 1);
}

/// A missing permission is reported once, and plainly. Root, who may do everything, tries it as another user.
#[test]
fn files_of_another_user_are_told_plainly() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mode = |path: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(at.join(path), mode).unwrap();
    };
    json(at, "account add alice --data d");
    std::fs::copy(env!("CARGO_BIN_EXE_weir"), at.join("weir")).unwrap();
    for path in [".", "d", "weir"] {
        mode(path, 0o755);
    }
    let check = |arguments: &str, words: &str| {
        let mut other = Command::new(at.join("weir"));
        other.args(arguments.split_whitespace()).current_dir(at);
        let output = other.uid(65_534).gid(65_534).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        let expected = format!("weir: this user has no permission to {words}:");
        assert!(errors.contains(&expected), "{arguments}: {errors}");
        assert_eq!(
            errors.matches("weir.db").count(),
            1,
            "{arguments}: {errors}"
        );
    };
    let database = at.join("d/weir.db");
    let database = std::fs::canonicalize(database).unwrap();
    let database = database.display();
    for command in ["account list", "credit alice 1", "migrate"] {
        check(&format!("{command} --data d"), &format!("read {database}"));
    }
    mode("d/weir.db", 0o644);
    for command in ["credit alice 1", "migrate"] {
        check(&format!("{command} --data d"), &format!("write {database}"));
    }
    mode("d/weir.db", 0o666);
    mode("d", 0o777);
    check(
        "credit alice 1 --data d",
        &format!("keep others from reading {database}"),
    );
}

#[test]
fn a_full_disk_behind_stdout_is_told_once() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    json(at, "account add alice --data d");
    for arguments in [
        "usage export --data d",
        "account list --data d",
        "key add alice --data d",
    ] {
        let mut command = weir(at);
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        command.args(arguments.split_whitespace()).stdout(full);
        let output = command.output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            errors.matches("os error 28").count(),
            1,
            "{arguments}: {errors}"
        );
    }
}

#[test]
fn migrate_says_what_is_pending_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let check = |arguments: &str, code: i32, state: &str| {
        let output = run(directory.path(), &format!("{arguments} --json"));
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["state"], state, "{arguments}");
    };
    check("migrate --check --data d", 1, "pending");
    assert!(!directory.path().join("d").exists());
    check("migrate --data d", 0, "current");
    check("migrate --check --data d", 0, "current");
    std::fs::write(directory.path().join("d/weir.db"), "x".repeat(5_000)).unwrap();
    let garbage = run(directory.path(), "migrate --check --data d");
    assert_eq!(garbage.status.code(), Some(3), "{garbage:?}");
}

/// A database that doesn't answer is reported soon, and without its password.
#[test]
fn a_database_out_of_reach_is_said_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        "database = \"postgres://weir:c4nary@127.0.0.1:1/weir\"\n[postgres]\ntimeout_seconds = 1\n";
    std::fs::write(directory.path().join("weir.toml"), config).unwrap();
    for arguments in [
        "account list",
        "migrate",
        "migrate --check",
        "ledger verify",
        "doctor",
    ] {
        let output = run(directory.path(), arguments);
        assert!(!output.status.success(), "{arguments}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("postgres://weir@127.0.0.1:1/weir"), "{said}");
        assert!(!said.contains("c4nary"), "{said}");
    }
}

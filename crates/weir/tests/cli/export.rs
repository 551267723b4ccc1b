//! `weir usage export`: the usage of requests as a file.

use std::path::Path;

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::{fails, json, run};

/// Writes records of this many requests as a server does, one per second from noon on.
fn use_models(at: &Path, account: &str, key: &str, requests: u32) {
    let mut raw = Connection::open(at.join("d/weir.db")).unwrap();
    raw.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let records = raw.transaction().unwrap();
    records
        .execute(
            "INSERT OR IGNORE INTO price (id, model, input, output, cached, created_at) VALUES (1, 'org/m', 200, 400, 100, 0)",
            [],
        )
        .unwrap();
    for n in 0..requests {
        let at = 1_800_014_400_000_i64 + i64::from(n) * 1000;
        let id = format!("{account}-{n}");
        records
            .execute(
                "INSERT INTO usage_record (ledger_transaction, request, attempt, account, api_key, model, price, prompt,
                     cached, completion, reasoning, held, cost, outcome, source, started_at, ended_at)
                 VALUES ((SELECT COALESCE(MAX(ledger_transaction), 0) + 1 FROM usage_record), ?1, 1, ?2, ?3, 'org/m', 1,
                     10, 0, 20, 0, 2000, 1000, 'success', 'engine', ?4, ?4)",
                params![id, account, key, at],
            )
            .unwrap();
    }
    records
        .execute(
            "INSERT INTO usage_day (api_key, day, model, price, account, requests, prompt, cached, completion, reasoning, cost, promo)
             SELECT api_key, ended_at / 86400000, model, price, account, COUNT(*), SUM(prompt), 0, SUM(completion), 0,
                 SUM(cost), 0
             FROM usage_record WHERE account = ?1 GROUP BY 1, 2, 3, 4, 5",
            [account],
        )
        .unwrap();
    records.commit().unwrap();
}

/// The lines that the command prints.
#[track_caller]
fn lines(at: &Path, options: &str) -> Vec<String> {
    let output = run(at, &format!("usage export --data d {options}"));
    assert_eq!(output.status.code(), Some(0), "{options}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn usage_is_exported() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    let account = |name: &str, requests| {
        let id = json(at, &format!("account add {name} --data d"))["id"].clone();
        let key = json(at, &format!("key add {name} --data d"))["id"].clone();
        let [id, key] = [id, key].map(|id| id.as_str().unwrap().to_owned());
        use_models(at, &id, &key, requests);
        (id, key)
    };
    let (alice, key) = account("alice", 2);
    const HEAD: &str = "id,account,key,request,attempt,model,prompt_tokens,cached_tokens,completion_tokens,reasoning_tokens,\
                        input_price,cached_price,output_price,cost,promo,outcome,source,started_at,ended_at";
    let csv = lines(at, "");
    assert_eq!(csv.len(), 3);
    assert_eq!(csv[0], HEAD);
    assert_eq!(
        csv[1],
        format!(
            "1,{alice},{key},{alice}-0,1,org/m,10,0,20,0,200,100,400,0.000001,0,success,engine,\
             2027-01-15T12:00:00Z,2027-01-15T12:00:00Z"
        )
    );
    let by_day = format!(
        r#"{{"day":"2027-01-15","account":"{alice}","key":"{key}","model":"org/m","requests":2,"prompt_tokens":20,"cached_tokens":0,"completion_tokens":40,"reasoning_tokens":0,"input_price":200,"cached_price":100,"output_price":400,"cost":"0.000002","promo":"0"}}"#
    );
    assert_eq!(lines(at, "--by day --format jsonl"), [by_day]);

    // More records than are in memory at once.
    let (_, other) = account("bob", 1_201);
    let count = |options: &str, count: usize| {
        assert_eq!(
            lines(at, &format!("--format jsonl {options}")).len(),
            count,
            "{options}"
        );
    };
    count("", 1_203);
    count("--account alice", 2);
    count(&format!("--key {other} --account alice"), 0);
    count(&format!("--key {other}"), 1_201);
    count("--model org/other", 0);
    count("--from 2027-01-15 --to 2027-01-16", 1_203);
    count("--from 2027-01-16", 0);
    count("--to 2027-01-15T12:00:01Z", 2);
    count("--by day", 2);
    assert_eq!(lines(at, "--to 2027-01-15"), [HEAD]);
    // The list of an account's requests still works beside it.
    assert_eq!(
        json(at, "usage bob --limit 7 --data d")
            .as_array()
            .unwrap()
            .len(),
        7
    );
    let records = |options: &str| {
        let rows = json(at, &format!("usage bob --limit 5000 --data d {options}"));
        rows.as_array().unwrap().len()
    };
    assert_eq!(records(""), 1_201);
    assert_eq!(
        records("--from 2027-01-15T12:00:01Z --to 2027-01-15T12:00:03Z"),
        2
    );
    assert_eq!(records("--from 2027-01-15 --to 2027-01-16"), 1_201);
    assert_eq!(records("--from 2027-01-16"), 0);
    assert_eq!(records("--to 2027-01-15T12:00:01Z"), 1);
    for command in ["usage export", "usage bob"] {
        for empty in [
            "--from 2027-01-15 --to 2027-01-15",
            "--from 2027-01-16 --to 2027-01-15",
        ] {
            let arguments = format!("{command} --data d {empty}");
            fails(at, &arguments, 2, "from is not before to");
        }
    }
    fails(at, "usage export --data d --account carol", 1, "carol");
    fails(at, "usage export --data d --key nokey", 1, "nokey");
    fails(at, "usage export --data d --format xml", 2, "csv or jsonl");
    fails(
        at,
        "usage export --data d --from today",
        2,
        "a time is such as",
    );
    fails(at, "usage --data d", 2, "<ACCOUNT>");
}

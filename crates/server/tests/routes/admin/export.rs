//! Export of usage as a file: every record once, for files of any length.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{Accounts, Caller, Counts, Nanos, NewHold, Outcome, Price, Settlement, Source};
use weir_inference::sim::{SimModel, SimOptions};
use weir_testkit::{NOW, Setup, TestApp, now, offer};

use super::{Desk, none};
use crate::chat;

#[tokio::test]
async fn files() {
    let mut desk = Desk::new().await;
    for (nth, max_tokens) in [3, 5].into_iter().enumerate() {
        let answer = desk
            .app
            .post(
                "/v1/chat/completions",
                chat(json!({"max_tokens": max_tokens})),
            )
            .await;
        desk.name(
            answer.header("x-request-id").to_owned(),
            format!("REQUEST{nth}"),
        );
    }
    desk.check(&[
        ("GET /usage/export", none(), r#"id,account,key,request,attempt,model,prompt_tokens,cached_tokens,completion_tokens,reasoning_tokens,input_price,cached_price,output_price,cost,promo,outcome,source,started_at,ended_at␍␊1,ACCT1,KEY0,REQUEST0,1,sim/chat,27,0,3,0,200,200,400,0.00000066,0,success,engine,2026-11-22T12:00:00Z,2026-11-22T12:00:00Z␍␊2,ACCT1,KEY0,REQUEST1,1,sim/chat,27,0,5,0,200,200,400,0.00000074,0,success,engine,2026-11-22T12:00:00Z,2026-11-22T12:00:00Z␍␊"#),
        ("GET /usage/export?format=jsonl", none(), r#"{"id":1,"account":"ACCT1","key":"KEY0","request":"REQUEST0","attempt":1,"model":"sim/chat","prompt_tokens":27,"cached_tokens":0,"completion_tokens":3,"reasoning_tokens":0,"input_price":200,"cached_price":200,"output_price":400,"cost":"0.00000066","promo":"0","outcome":"success","source":"engine","started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:00:00Z"}␊{"id":2,"account":"ACCT1","key":"KEY0","request":"REQUEST1","attempt":1,"model":"sim/chat","prompt_tokens":27,"cached_tokens":0,"completion_tokens":5,"reasoning_tokens":0,"input_price":200,"cached_price":200,"output_price":400,"cost":"0.00000074","promo":"0","outcome":"success","source":"engine","started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:00:00Z"}␊"#),
        ("GET /usage/export?by=day", none(), r#"day,account,key,model,requests,prompt_tokens,cached_tokens,completion_tokens,reasoning_tokens,input_price,cached_price,output_price,cost,promo␍␊2026-11-22,ACCT1,KEY0,sim/chat,2,54,0,8,0,200,200,400,0.0000014,0␍␊"#),
        (
            "GET /usage/export?by=day&format=jsonl&account=test&key=KEY0&model=sim/chat",
            none(),
            r#"{"day":"2026-11-22","account":"ACCT1","key":"KEY0","model":"sim/chat","requests":2,"prompt_tokens":54,"cached_tokens":0,"completion_tokens":8,"reasoning_tokens":0,"input_price":200,"cached_price":200,"output_price":400,"cost":"0.0000014","promo":"0"}␊"#,
        ),
        ("GET /usage/export?account=office", none(), r#"id,account,key,request,attempt,model,prompt_tokens,cached_tokens,completion_tokens,reasoning_tokens,input_price,cached_price,output_price,cost,promo,outcome,source,started_at,ended_at␍␊"#),
        ("GET /usage/export?key=ADMIN&format=jsonl", none(), ""),
        (
            "GET /usage/export?model=other&by=day&format=jsonl",
            none(), "",
        ),
        (
            "GET /usage/export?format=jsonl&to=2026-11-22T12:00:00Z",
            none(), "",
        ),
        (
            "GET /usage/export?format=jsonl&from=2026-11-22T12:00:00.001Z",
            none(), "",
        ),
        (
            "GET /usage/export?format=jsonl&by=day&to=2026-11-22T00:00:00Z",
            none(), "",
        ),
        (
            "GET /usage/export?format=jsonl&by=day&from=2026-11-23T00:00:00Z",
            none(), "",
        ),
        ("GET /usage/export?format=xml", none(), r#"400 INVALID_REQUEST_BODY "format" format: unknown variant `xml`, expected `csv` or `jsonl`"#),
        ("GET /usage/export?from=today", none(), r#"400 INVALID_REQUEST_BODY "from" from: a time is such as 2027-01-31 or 2027-01-31T12:00:00Z"#),
        ("GET /usage/export?key=nobody", none(), r#"404 NOT_FOUND null there is no key "nobody""#),
        ("GET /usage/export?format=jsonl&by=day&from=2026-11-23", none(), ""),
        ("GET /usage/export?format=jsonl&to=2026-11-22", none(), ""),
        ("GET /usage/export?from=2026-11-22&to=2026-11-22", none(), r#"400 INVALID_REQUEST_BODY "from" from is not before to, and nothing is in between; a day is when it begins: all of 2027-01-31 is from 2027-01-31 to 2027-02-01"#),
        ("GET /usage/export?from=2026-11-23T00:00:00Z&to=2026-11-22", none(), r#"400 INVALID_REQUEST_BODY "from" from is not before to, and nothing is in between; a day is when it begins: all of 2027-01-31 is from 2027-01-31 to 2027-02-01"#),
        ("GET /usage/export?account=nobody", none(), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("GET /usage/export?modell=x", none(), r#"400 INVALID_REQUEST_BODY "modell" unknown field `modell`, expected one of `format`, `by`, `from`, `to`, `account`, `key`, `model`"#),
    ])
    .await;
    let bounds = "from=2026-11-22T12:00:00Z&to=2026-11-22T12:00:00.001Z";
    let whole = desk.send("GET /usage/export", "").await;
    assert_eq!(
        desk.send(&format!("GET /usage/export?{bounds}"), "")
            .await
            .body,
        whole.body
    );
    let days = desk
        .send("GET /usage/export?from=2026-11-22&to=2026-11-23", "")
        .await;
    assert_eq!(days.body, whole.body);
}

/// Browsers save the file, and don't guess another type.
#[tokio::test]
async fn files_are_saved_not_shown() {
    let desk = Desk::new().await;
    for (format, name) in [("csv", "weir-usage.csv"), ("jsonl", "weir-usage.jsonl")] {
        let file = desk
            .send(&format!("GET /usage/export?format={format}"), "")
            .await;
        let headers =
            ["content-disposition", "x-content-type-options"].map(|name| file.header(name));
        assert_eq!(
            headers,
            [&*format!("attachment; filename=\"{name}\""), "nosniff"]
        );
    }
}

/// The operator may choose any text as a model's id, even a formula.
#[tokio::test]
async fn formulas_are_text() {
    let id = "=HYPERLINK(\"http://x\",\"y\")";
    let setup = Setup {
        offers: vec![offer(id, Some(SimModel::new(SimOptions::default())))],
        ..Setup::default()
    };
    let desk = Desk::of(TestApp::start(setup).await).await;
    let answer = desk
        .app
        .post(
            "/v1/chat/completions",
            chat(json!({"model": id, "max_tokens": 1})),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for by in ["record", "day"] {
        let file = desk.send(&format!("GET /usage/export?by={by}"), "").await;
        let quoted = "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"";
        assert!(
            file.text().contains(&format!(",{quoted},")),
            "{}",
            file.text()
        );
    }
}

/// A file of more than one chunk, with several accounts and keys, is in order.
#[tokio::test]
async fn long_files() {
    const COUNT: usize = 1203;
    let desk = Desk::new().await;
    let accounts = &desk.app.accounts;
    let second = accounts.add_account("a-second", now()).await.unwrap().id;
    accounts
        .credit(&second, Nanos::from_usd(1).unwrap(), "one", "", now())
        .await
        .unwrap();
    let mut callers = vec![accounts.authenticate(&desk.app.key, now()).await.unwrap()];
    for _ in 0..2 {
        let key = accounts.add_key(&second, None, now()).await.unwrap();
        let caller = accounts.authenticate(key.secret.expose(), now()).await;
        callers.push(caller.unwrap());
    }
    // Each request has a model of its own, so that there are as many lines by day as by record.
    for nth in 0..COUNT {
        charge(accounts, &callers[nth % 3], nth).await;
    }
    for by in ["record", "day"] {
        let call = format!("GET /usage/export?format=jsonl&by={by}");
        let file = desk.send(&call, "").await;
        let lines = file
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let of_second = lines.iter().map(|line| line["account"] == second.as_str());
        let split = of_second.clone().take_while(|second| *second).count();
        assert_eq!(split, COUNT / 3 * 2, "by name");
        assert_eq!(of_second.filter(|second| *second).count(), split);
        let times = lines.iter().map(|line| {
            let day = || line["day"].as_str().unwrap();
            line["ended_at"].as_str().unwrap_or_else(day)
        });
        let times: Vec<_> = times.collect();
        assert!(
            times[..split].is_sorted() && times[split..].is_sorted(),
            "oldest first"
        );
        let models: BTreeSet<_> = lines.iter().map(|line| line["model"].as_str()).collect();
        assert_eq!((models.len(), lines.len()), (COUNT, COUNT), "each once");
        let csv = desk.send(&format!("GET /usage/export?by={by}"), "").await;
        assert_eq!(csv.text().lines().count(), COUNT + 1);
        let media_type = "text/csv; charset=utf-8; header=present";
        assert_eq!(csv.header("content-type"), media_type);
    }
}

/// Settles a request that ended some minutes after the first.
async fn charge(accounts: &Accounts, caller: &Caller, nth: usize) {
    let minutes = i64::try_from(nth * 7 % 5000).unwrap();
    let ended = Timestamp::from_second(NOW + minutes * 60).unwrap();
    let new = NewHold {
        request: format!("{nth:032x}"),
        attempt: 1,
        caller: caller.clone(),
        model: format!("model-{nth}"),
        price: Price {
            input: 10,
            output: 20,
            cached: None,
        },
        amount: Nanos::new(1000),
        now: ended,
    };
    let hold = accounts.hold(new).unwrap().durable().await.unwrap();
    let settlement = Settlement {
        counts: Counts {
            prompt: 3,
            ..Counts::default()
        },
        outcome: Outcome::Success,
        source: Source::Engine,
        now: ended,
    };
    accounts.settle(hold, settlement).await.unwrap();
}

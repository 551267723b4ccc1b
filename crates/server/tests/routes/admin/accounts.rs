//! Tests that list, create, change and suspend accounts.

use serde_json::json;

use super::{Desk, none};

#[tokio::test]
async fn accounts() {
    let mut desk = Desk::new().await;
    desk.check(&[
        ("GET /accounts", none(), r#"{"data":[{"id":"ACCT2","name":"office","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null},{"id":"ACCT1","name":"test","balance":"5","held":"0","available":"5","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}],"has_more":false,"next":null}"#),
        ("POST /accounts", json!({"name": "beta"}), r#"{"id":"ACCT3","name":"beta","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        ("POST /accounts", json!({"name": "alfa"}), r#"{"id":"ACCT4","name":"alfa","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        ("POST /accounts", json!({"name": "alfa"}), r#"409 NAME_TAKEN "name" there is an account named "alfa" already"#),
        ("POST /accounts", json!({"name": "two words"}), r#"400 INVALID_REQUEST_BODY "name" an account's name has 1 to 64 letters, digits and . _ - @ +, begins with a letter or digit, and not with acct_ or sk_"#),
        ("POST /accounts", json!({"name": 5}), r#"400 INVALID_REQUEST_BODY "name" name: invalid type: integer `5`, expected a string"#),
        ("POST /accounts", json!({"name": "c", "balance": "5"}), r#"400 INVALID_REQUEST_BODY "balance" unknown field `balance`, expected `name`"#),
        ("POST /accounts", json!({}), r#"400 INVALID_REQUEST_BODY "name" missing field `name`"#),
        ("POST /accounts", none(), r#"400 INVALID_REQUEST_BODY null the body is empty; a JSON object is expected"#),
        ("POST /accounts", json!(["gamma"]), r#"400 INVALID_REQUEST_BODY null the body is not a request: an object is expected"#),
        ("GET /accounts/alfa", none(), r#"{"id":"ACCT4","name":"alfa","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        ("GET /accounts/ACCT4", none(), r#"{"id":"ACCT4","name":"alfa","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        ("GET /accounts/nobody", none(), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("GET /accounts/%FF", none(), r#"404 NOT_FOUND null there is no account """#),
        ("GET /accounts/a%00b", none(), r#"404 NOT_FOUND null nothing is called so"#),
    ])
    .await;
}

#[tokio::test]
async fn changes() {
    let mut desk = Desk::new().await;
    desk.check(&[
        ("PATCH /accounts/test", json!({}), r#"{"id":"ACCT1","name":"test","balance":"5","held":"0","available":"5","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        (
            "PATCH /accounts/test",
            json!({"name": "renamed", "credit_limit": "10", "low_balance": "0.5", "tier": "T3",
                "limits": {"requests_per_minute": 60, "tokens_per_minute": 1000}}),
            r#"{"id":"ACCT1","name":"renamed","balance":"5","held":"0","available":"15","promo":"0","credit_limit":"10","low_balance":"0.5","tier":"T3","limits":{"requests_per_minute":60,"tokens_per_minute":1000,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#,
        ),
        (
            "PATCH /accounts/ACCT1",
            json!({"limits": {"concurrent_requests": 2}, "low_balance": null}),
            r#"{"id":"ACCT1","name":"renamed","balance":"5","held":"0","available":"15","promo":"0","credit_limit":"10","low_balance":null,"tier":"T3","limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":2},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#,
        ),
        (
            "PATCH /accounts/ACCT1",
            json!({"limits": null, "tier": null, "suspended": {"reason": "unpaid"}}),
            r#"{"id":"ACCT1","name":"renamed","balance":"5","held":"0","available":"15","promo":"0","credit_limit":"10","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":{"since":"2026-11-22T12:00:00Z","reason":"unpaid"},"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#,
        ),
        ("PATCH /accounts/ACCT1", json!({"suspended": null}), r#"{"id":"ACCT1","name":"renamed","balance":"5","held":"0","available":"15","promo":"0","credit_limit":"10","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        (
            "PATCH /accounts/ACCT1",
            json!({"suspended": {"reason": ""}}),
            r#"400 INVALID_REQUEST_BODY "suspended.reason" the reason of a suspension has 1 to 256 bytes and no control, bidirectional or invisible characters"#,
        ),
        ("PATCH /accounts/ACCT1", json!({"suspended": true}), r#"400 INVALID_REQUEST_BODY "suspended" suspended: invalid type: boolean `true`, expected an object"#),
        ("PATCH /accounts/ACCT1", json!({"credit_limit": "-1"}), r#"400 INVALID_REQUEST_BODY "credit_limit" a credit limit and a low balance can't be negative"#),
        (
            "PATCH /accounts/ACCT1",
            json!({"credit_limit": "1.0000000001"}),
            r#"400 INVALID_REQUEST_BODY "credit_limit" credit_limit: an amount has at most 9 decimals"#,
        ),
        ("PATCH /accounts/ACCT1", json!({"credit_limit": 5}), r#"400 INVALID_REQUEST_BODY "credit_limit" credit_limit: invalid type: integer `5`, expected a string"#),
        ("PATCH /accounts/ACCT1", json!({"credit_limit": null}), r#"400 INVALID_REQUEST_BODY "credit_limit" credit_limit: invalid type: null, expected a string"#),
        ("PATCH /accounts/ACCT1", json!({"low_balance": "1e3"}), r#"400 INVALID_REQUEST_BODY "low_balance" low_balance: an amount is dollars like 5 or 0.25"#),
        ("PATCH /accounts/ACCT1", json!({"tier": "T6"}), r#"400 INVALID_REQUEST_BODY "tier" tier: unknown variant `T6`, expected one of `T1`, `T2`, `T3`, `T4`, `T5`"#),
        (
            "PATCH /accounts/ACCT1",
            json!({"limits": {"requests_per_minute": 0}}),
            r#"400 INVALID_REQUEST_BODY "limits" a limit is at least 1, and can be counted"#,
        ),
        (
            "PATCH /accounts/ACCT1",
            json!({"limits": {"requests": 1}}),
            r#"400 INVALID_REQUEST_BODY "limits.requests" limits: unknown field `requests`, expected one of `requests_per_minute`, `tokens_per_minute`, `concurrent_requests`"#,
        ),
        ("PATCH /accounts/ACCT1", json!({"balance": "1"}), r#"400 INVALID_REQUEST_BODY "balance" unknown field `balance`, expected one of `name`, `credit_limit`, `low_balance`, `tier`, `limits`, `model_limits`, `suspended`"#),
        ("PATCH /accounts/nobody", json!({"tier": "T1"}), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("GET /audit?account=renamed&limit=3", none(), r#"{"data":[{"id":9,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"account.update","account":"ACCT1","target":"ACCT1","before":{"suspended":"unpaid"},"after":{"suspended":null}},{"id":8,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"account.update","account":"ACCT1","target":"ACCT1","before":{"tier":"T3","limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":2},"suspended":null},"after":{"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"suspended":"unpaid"}},{"id":7,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"account.update","account":"ACCT1","target":"ACCT1","before":{"low_balance":"0.5","limits":{"requests_per_minute":60,"tokens_per_minute":1000,"concurrent_requests":null}},"after":{"low_balance":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":2}}}],"has_more":true,"next":"7"}"#),
    ])
    .await;
}

#[tokio::test]
async fn limits_by_model() {
    let mut desk = Desk::new().await;
    const NONE: &str = r#"{"id":"ACCT1","name":"test","balance":"5","held":"0","available":"5","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#;
    const BAD: &str = r#"400 INVALID_REQUEST_BODY "model_limits" an account has limits for at most 100 models; a model's id has 1 to 256 bytes and no control, bidirectional or invisible characters"#;
    let many: serde_json::Map<_, _> = (0..101)
        .map(|n| (format!("m{n}"), json!({"requests_per_minute": 1})))
        .collect();
    desk.check(&[
        (
            "PATCH /accounts/test",
            json!({"model_limits": {"sim/plain": {"tokens_per_minute": 9}, "sim/chat": {"requests_per_minute": 2, "tokens_per_minute": null}, "none": {}}}),
            r#"{"id":"ACCT1","name":"test","balance":"5","held":"0","available":"5","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{"sim/chat":{"requests_per_minute":2,"tokens_per_minute":null,"concurrent_requests":null},"sim/plain":{"requests_per_minute":null,"tokens_per_minute":9,"concurrent_requests":null}},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#,
        ),
        ("GET /audit?limit=1", none(), r#"{"data":[{"id":6,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"account.update","account":"ACCT1","target":"ACCT1","before":{"model_limits":{}},"after":{"model_limits":{"sim/chat":{"requests_per_minute":2,"tokens_per_minute":null,"concurrent_requests":null},"sim/plain":{"requests_per_minute":null,"tokens_per_minute":9,"concurrent_requests":null}}}}],"has_more":true,"next":"6"}"#),
        ("PATCH /accounts/test", json!({"model_limits": {"a": {"requests_per_minute": 0}}}), r#"400 INVALID_REQUEST_BODY "limits" a limit is at least 1, and can be counted"#),
        ("PATCH /accounts/test", json!({"model_limits": {"a": {"requests": 1}}}), r#"400 INVALID_REQUEST_BODY "model_limits.a.requests" model_limits.a: unknown field `requests`, expected one of `requests_per_minute`, `tokens_per_minute`, `concurrent_requests`"#),
        ("PATCH /accounts/test", json!({"model_limits": {"": {"requests_per_minute": 1}}}), BAD),
        ("PATCH /accounts/test", json!({"model_limits": {"a\nb": {"requests_per_minute": 1}}}), BAD),
        ("PATCH /accounts/test", json!({"model_limits": many}), BAD),
        ("PATCH /accounts/test", json!({"model_limits": null}), NONE),
        ("GET /accounts/test", none(), NONE),
    ])
    .await;
}

/// Every entry comes once and in order, whatever the page size.
#[tokio::test]
async fn lists_come_in_parts() {
    let mut desk = Desk::new().await;
    for name in ["b", "a", "d", "c"] {
        desk.ask("POST /accounts", json!({"name": name})).await;
        desk.ask("POST /accounts/test/keys", json!({"name": name}))
            .await;
        let credit = format!("POST /accounts/test/credits #{name}");
        desk.ask(&credit, json!({"amount": "1"})).await;
    }
    let lists = [
        ("/accounts", 6),
        ("/accounts/test/keys", 5),
        ("/accounts/test/ledger", 5),
        ("/audit", 17),
    ];
    for (path, count) in lists {
        let whole = desk.send(&format!("GET {path}?limit=500"), "").await.json();
        let whole = whole["data"].as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{path}");
        for limit in [1, 2, count - 1, count, count + 1] {
            let mut found = Vec::new();
            let mut after = String::new();
            loop {
                let part = desk
                    .send(&format!("GET {path}?limit={limit}{after}"), "")
                    .await
                    .json();
                let data = part["data"].as_array().unwrap();
                assert!(data.len() <= limit);
                found.extend(data.iter().cloned());
                assert_eq!(part["has_more"], part["next"].is_string(), "{part}");
                match part["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(found, whole, "{path} by {limit}");
        }
    }
    desk.check(&[
        ("GET /accounts?limit=0", none(), r#"400 INVALID_REQUEST_BODY "limit" limit is 1 to 500"#),
        ("GET /accounts?limit=501", none(), r#"400 INVALID_REQUEST_BODY "limit" limit is 1 to 500"#),
        ("GET /accounts?limit=-1", none(), r#"400 INVALID_REQUEST_BODY "limit" limit: a whole number is expected"#),
        ("GET /accounts?limit=1&limit=2", none(), r#"400 INVALID_REQUEST_BODY "limit" limit is there twice"#),
        ("GET /accounts?first=1", none(), r#"400 INVALID_REQUEST_BODY "first" unknown field `first`, expected `limit` or `after`"#),
        ("GET /accounts?after=zzz", none(), r#"{"data":[],"has_more":false,"next":null}"#),
        ("GET /accounts/a/keys?after=KEY0", none(), r#"400 INVALID_REQUEST_BODY "after" after is the `next` of the part before"#),
        ("GET /accounts/a/keys?after=x", none(), r#"400 INVALID_REQUEST_BODY "after" after is the `next` of the part before"#),
        ("GET /accounts/a/keys", none(), r#"{"data":[],"has_more":false,"next":null}"#),
        ("GET /accounts/a/ledger?after=x", none(), r#"400 INVALID_REQUEST_BODY "after" after is the `next` of the part before"#),
        ("GET /accounts/a/usage?after=x", none(), r#"400 INVALID_REQUEST_BODY "after" after is the `next` of the part before"#),
        ("GET /audit?after=1.5", none(), r#"400 INVALID_REQUEST_BODY "after" after is the `next` of the part before"#),
        ("GET /audit?account=nobody", none(), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("GET /accounts/a?limit=1", none(), r#"400 INVALID_REQUEST_BODY "limit" unknown field `limit`, there are no fields"#),
    ])
    .await;
}

#[tokio::test]
async fn deletion() {
    let mut desk = Desk::new().await;
    desk.check(&[
        ("DELETE /accounts/test", none(), r#"409 ACCOUNT_NOT_EMPTY null the account test has a balance of 5 USD: adjust it to 0, or write it off"#),
        ("DELETE /accounts/test?write_off=maybe", none(), r#"400 INVALID_REQUEST_BODY "write_off" write_off: true or false is expected"#),
        ("DELETE /accounts/office?write_off=true", none(), r#"409 OWN_ACCOUNT null this would delete the account of the key that asks; use another account's key, or `weir account delete`"#),
        ("DELETE /accounts/nobody", none(), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("DELETE /accounts/test?write_off=true&reason=closed", none(), r#"{"id":"ACCT1","name":"test~ACCT1","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":"2026-11-22T12:00:00Z"}"#),
        ("GET /accounts/test", none(), r#"404 NOT_FOUND null there is no account "test""#),
        ("POST /accounts/ACCT1/keys", json!({}), r#"400 INVALID_REQUEST_BODY "account" the account ACCT1 is deleted"#),
        ("POST /accounts", json!({"name": "test"}), r#"{"id":"ACCT3","name":"test","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
    ])
    .await;
    assert_eq!(desk.app.get("/v1/key").await.status, 401);
    let own = desk
        .app
        .send(desk.app.request(http::Method::GET, "/v1/key", ""))
        .await;
    assert_eq!(own.status, 401, "its keys are revoked");
}

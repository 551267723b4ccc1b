//! Tests that create, change, rotate and revoke keys.

use serde_json::json;
use weir_accounts::{AccountChange, Standing};
use weir_testkit::now;

use super::{Desk, none};
use crate::chat;

#[tokio::test]
async fn keys() {
    let mut desk = Desk::new().await;
    desk.check(&[
        ("GET /accounts/test/keys", none(), r#"{"data":[{"id":"KEY0","account":"ACCT1","name":null,"role":"inference","models":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":null,"day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":null,"old_secret_until":null,"revoked_at":null}],"has_more":false,"next":null}"#),
        ("POST /accounts/test/keys", json!({}), r#"{"id":"KEY1","key":"sk_KEY1_SECRET"}"#),
        (
            "POST /accounts/ACCT1/keys",
            json!({"name": "ci", "role": "viewer", "models": ["sim/chat"], "expires_at": "2027-01-01T01:00:00+01:00",
                "limits": {"requests_per_minute": 5}, "caps": {"total": "10", "day": "0.000000001"}}),
            r#"{"id":"KEY2","key":"sk_KEY2_SECRET"}"#,
        ),
        ("GET /keys/KEY2", none(), r#"{"id":"KEY2","account":"ACCT1","name":"ci","role":"viewer","models":["sim/chat"],"limits":{"requests_per_minute":5,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":"10","month":null,"day":"0.000000001"},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":"2027-01-01T00:00:00Z","rotated_at":null,"old_secret_until":null,"revoked_at":null,"spent":{"total":"0","month":"0","week":"0","day":"0","held":"0"}}"#),
        ("PATCH /keys/KEY2", json!({"name": null, "models": null, "expires_at": null, "limits": null, "caps": null}), r#"{"id":"KEY2","account":"ACCT1","name":null,"role":"viewer","models":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":null,"day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":null,"old_secret_until":null,"revoked_at":null}"#),
        ("PATCH /keys/KEY2", json!({"name": "other", "models": ["a", "b"], "caps": {"month": "3"}}), r#"{"id":"KEY2","account":"ACCT1","name":"other","role":"viewer","models":["a","b"],"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":"3","day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":null,"old_secret_until":null,"revoked_at":null}"#),
        ("PATCH /keys/KEY2", json!({}), r#"{"id":"KEY2","account":"ACCT1","name":"other","role":"viewer","models":["a","b"],"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":"3","day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":null,"old_secret_until":null,"revoked_at":null}"#),
        ("POST /keys/KEY2/rotate", json!({"grace_seconds": 60}), r#"{"id":"KEY2","key":"sk_KEY2_SECRET"}"#),
        ("POST /keys/KEY2/revoke", none(), r#"{"id":"KEY2","account":"ACCT1","name":"other","role":"viewer","models":["a","b"],"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":"3","day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":"2026-11-22T12:00:00Z","old_secret_until":"2026-11-22T12:01:00Z","revoked_at":"2026-11-22T12:00:00Z"}"#),
        ("POST /keys/KEY2/revoke", json!({}), r#"{"id":"KEY2","account":"ACCT1","name":"other","role":"viewer","models":["a","b"],"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":"3","day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":"2026-11-22T12:00:00Z","old_secret_until":"2026-11-22T12:01:00Z","revoked_at":"2026-11-22T12:00:00Z"}"#),
        ("POST /keys/KEY2/revoke", json!({"why": "x"}), r#"400 INVALID_REQUEST_BODY "why" unknown field `why`, there are no fields"#),
        ("POST /keys/KEY2/rotate", json!({"grace_seconds": 60}), r#"400 INVALID_REQUEST_BODY "key" the key "KEY2" is revoked"#),
        ("PATCH /keys/KEY2", json!({"name": "x"}), r#"400 INVALID_REQUEST_BODY "key" the key "KEY2" is revoked"#),
        ("GET /keys/nosuch", none(), r#"404 NOT_FOUND null there is no key "nosuch""#),
        ("GET /audit?limit=1", none(), r#"{"data":[{"id":11,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"key.revoke","account":"ACCT1","target":"KEY2","before":{"revoked_at":null},"after":{"revoked_at":"2026-11-22T12:00:00Z"}}],"has_more":true,"next":"11"}"#),
    ])
    .await;
}

#[tokio::test]
async fn keys_that_make_no_sense() {
    let mut desk = Desk::new().await;
    desk.check(&[
        ("POST /accounts/nobody/keys", json!({}), r#"404 NOT_FOUND null there is no account "nobody""#),
        ("POST /accounts/test/keys", json!({"role": "root"}), r#"400 INVALID_REQUEST_BODY "role" role: unknown variant `root`, expected one of `inference`, `admin`, `billing`, `viewer`"#),
        ("POST /accounts/test/keys", json!({"name": ""}), r#"400 INVALID_REQUEST_BODY "name" a key's name has 1 to 64 bytes and no control, bidirectional or invisible characters"#),
        ("POST /accounts/test/keys", json!({"models": ["a\nb"]}), r#"400 INVALID_REQUEST_BODY "models" a key is for at most 1000 models; a model's id has 1 to 256 bytes and no control, bidirectional or invisible characters"#),
        ("POST /accounts/test/keys", json!({"models": "a"}), r#"400 INVALID_REQUEST_BODY "models" models: invalid type: string, expected a sequence"#),
        (
            "POST /accounts/test/keys",
            json!({"expires_at": "tomorrow"}),
            r#"400 INVALID_REQUEST_BODY "expires_at" expires_at: a time is such as 2027-01-01T00:00:00Z"#,
        ),
        (
            "POST /accounts/test/keys",
            json!({"expires_at": 1_800_000_000}),
            r#"400 INVALID_REQUEST_BODY "expires_at" expires_at: invalid type: integer `1800000000`, expected a string"#,
        ),
        (
            "POST /accounts/test/keys",
            json!({"caps": {"day": "-1"}}),
            r#"400 INVALID_REQUEST_BODY "caps" a spend cap can't be negative"#,
        ),
        (
            "POST /accounts/test/keys",
            json!({"caps": {"day": "x"}}),
            r#"400 INVALID_REQUEST_BODY "caps.day" caps.day: an amount is dollars like 5 or 0.25"#,
        ),
        (
            "POST /accounts/test/keys",
            json!({"limits": {"tokens_per_minute": -1}}),
            r#"400 INVALID_REQUEST_BODY "limits.tokens_per_minute" limits.tokens_per_minute: invalid value: integer `-1`, expected u64"#,
        ),
        (
            "POST /accounts/test/keys",
            json!({"limits": {"tokens_per_minute": u64::MAX}}),
            r#"400 INVALID_REQUEST_BODY "limits" a limit is at least 1, and can be counted"#,
        ),
        ("POST /accounts/test/keys", json!({"key": "sk_a_b"}), r#"400 INVALID_REQUEST_BODY "key" unknown field `key`, expected one of `name`, `role`, `models`, `expires_at`, `limits`, `caps`"#),
        ("POST /keys/KEY0/rotate", none(), r#"400 INVALID_REQUEST_BODY null the body is empty; a JSON object is expected"#),
        (
            "POST /keys/KEY0/rotate",
            json!({"grace_seconds": 2_592_001}),
            r#"400 INVALID_REQUEST_BODY "grace_seconds" an old secret is accepted for 0 seconds to 30 days more"#,
        ),
        ("POST /keys/KEY0/rotate", json!({"grace_seconds": -1}), r#"400 INVALID_REQUEST_BODY "grace_seconds" grace_seconds: invalid value: integer `-1`, expected u32"#),
        ("PATCH /keys/KEY0", json!({"role": "admin"}), r#"400 INVALID_REQUEST_BODY "role" unknown field `role`, expected one of `name`, `expires_at`, `models`, `limits`, `caps`"#),
    ])
    .await;
}

/// A new key works, its old secret works during the grace period, and no secret works after revocation.
#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    let mut desk = Desk::new().await;
    let app_key = desk.app.key.clone();
    let try_with = async |desk: &mut Desk, key: &str| {
        desk.app.key = key.to_owned();
        let status = desk
            .app
            .post("/v1/chat/completions", chat(json!({"max_tokens": 1})))
            .await
            .status;
        desk.app.key.clone_from(&app_key);
        status.as_u16()
    };
    let made = desk.send("POST /accounts/test/keys", "{}").await;
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.json();
    let (id, first) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(try_with(&mut desk, first).await, 200);
    let rotated = desk
        .send(&format!("POST /keys/{id}/rotate"), r#"{"grace_seconds":1}"#)
        .await
        .json();
    let second = rotated["key"].as_str().unwrap();
    assert_eq!(
        [
            try_with(&mut desk, first).await,
            try_with(&mut desk, second).await
        ],
        [200, 200]
    );
    let again = desk
        .send(&format!("POST /keys/{id}/rotate"), r#"{"grace_seconds":0}"#)
        .await
        .json();
    let third = again["key"].as_str().unwrap();
    assert_eq!(
        [
            try_with(&mut desk, second).await,
            try_with(&mut desk, third).await
        ],
        [401, 200]
    );
    let spent = desk.send(&format!("GET /keys/{id}"), "").await.json();
    assert_eq!(spent["spent"]["total"], spent["spent"]["day"]);
    assert_ne!(spent["spent"]["total"], "0");
    desk.send(&format!("POST /keys/{id}/revoke"), "").await;
    assert_eq!(try_with(&mut desk, third).await, 401);
}

/// A replay names the key that was created, but can't show its secret again.
#[tokio::test]
async fn a_key_is_made_once() {
    let mut desk = Desk::new().await;
    const MADE: &str = r#"409 KEY_MADE "Idempotency-Key" this idempotency key has made the key KEY1 before, and a secret is shown once: rotate it for a new one, or revoke it"#;
    desk.check(&[
        ("POST /accounts/test/keys #one", json!({"name": "ci"}), r#"{"id":"KEY1","key":"sk_KEY1_SECRET"}"#),
        ("POST /accounts/test/keys #one", json!({"name": "ci"}), MADE),
        ("POST /accounts/ACCT1/keys #one", json!({"role": "admin"}), MADE),
        (
            "POST /accounts/office/keys #one",
            json!({"name": "ci"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        ("POST /accounts/test/keys #two", json!({"name": "ci"}), r#"{"id":"KEY2","key":"sk_KEY2_SECRET"}"#),
        ("POST /accounts/test/keys #one", json!({"name": ""}), r#"400 INVALID_REQUEST_BODY "name" a key's name has 1 to 64 bytes and no control, bidirectional or invisible characters"#),
        ("POST /keys/KEY1/revoke", none(), r#"{"id":"KEY1","account":"ACCT1","name":"ci","role":"inference","models":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"caps":{"total":null,"month":null,"day":null},"created_at":"2026-11-22T12:00:00Z","last_used_at":null,"expires_at":null,"rotated_at":null,"old_secret_until":null,"revoked_at":"2026-11-22T12:00:00Z"}"#),
        ("POST /accounts/test/keys #one", json!({"name": "ci"}), MADE),
        ("POST /accounts/test/keys", json!({"name": "ci"}), r#"{"id":"KEY3","key":"sk_KEY3_SECRET"}"#),
    ])
    .await;
    let long = format!("POST /accounts/test/keys #{}", "x".repeat(201));
    let refused = desk.ask(&long, json!({})).await;
    assert!(
        refused.starts_with(r#"400 INVALID_REQUEST_BODY "Idempotency-Key""#),
        "{refused}"
    );
    let replay = desk
        .send("POST /accounts/test/keys #one", "{}")
        .await
        .json();
    assert_eq!(replay["metadata"]["key"], desk.real("KEY1"));
    assert_eq!(replay["error"]["code"], "key_made");
    let keys = desk.send("GET /accounts/test/keys", "").await.json();
    assert_eq!(keys["data"].as_array().unwrap().len(), 4, "{keys}");
}

/// A suspended account's keys can't administer, so no key may suspend its own account.
#[tokio::test]
async fn a_suspended_administrator() {
    let mut desk = Desk::new().await;
    const OWN: &str = r#"409 OWN_ACCOUNT "suspended" this would suspend the account of the key that asks; use another account's key, or `weir account suspend`"#;
    desk.check(&[
        ("PATCH /accounts/office", json!({"suspended": {"reason": "leaked"}}), OWN),
        ("PATCH /accounts/ACCT2", json!({"name": "bureau", "suspended": {"reason": "leaked"}}), OWN),
        (
            "PATCH /accounts/ACCT2",
            json!({"suspended": null}),
            r#"{"id":"ACCT2","name":"office","balance":"0","held":"0","available":"0","promo":"0","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#,
        ),
    ])
    .await;
    let office = desk.app.accounts.account("office").await.unwrap().id;
    let suspend = AccountChange {
        standing: Some(Standing::Suspended {
            reason: "leaked".to_owned(),
        }),
        ..AccountChange::default()
    };
    desk.app
        .accounts
        .update_account(&office, suspend, now())
        .await
        .unwrap();
    desk.check(&[
        (
            "GET /accounts",
            none(),
            r#"403 ACCESS_DENIED null the account is suspended"#,
        ),
        (
            "PATCH /accounts/office",
            json!({"suspended": null}),
            r#"403 ACCESS_DENIED null the account is suspended"#,
        ),
    ])
    .await;
}

//! Money moves once, and each movement is listed.

use serde_json::json;

use super::{Desk, none};
use crate::chat;

#[tokio::test]
async fn credit() {
    let mut desk = Desk::new().await;
    desk.check(&[
        (
            "POST /accounts/test/credits #one",
            json!({"amount": "0.000000001"}),
            r#"{"transaction":2,"account":"ACCT1","amount":"0.000000001","balance":"5.000000001","at":"2026-11-22T12:00:00Z","replayed":false}"#,
        ),
        (
            "POST /accounts/test/credits #one",
            json!({"amount": "0.000000001"}),
            r#"{"transaction":2,"account":"ACCT1","amount":"0.000000001","balance":"5.000000001","at":"2026-11-22T12:00:00Z","replayed":true}"#,
        ),
        (
            "POST /accounts/test/credits #one",
            json!({"amount": "0.000000002"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        ("POST /accounts/test/credits", json!({"amount": "1"}), r#"400 INVALID_REQUEST_BODY "Idempotency-Key" the header Idempotency-Key is needed, once, with 1 to 200 visible characters"#),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "0"}),
            r#"400 INVALID_REQUEST_BODY "amount" a credit must be more than 0, not 0"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "-1"}),
            r#"400 INVALID_REQUEST_BODY "amount" a credit must be more than 0, not -1"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": 1.5}),
            r#"400 INVALID_REQUEST_BODY "amount" amount: invalid type: floating point `1.5`, expected a string"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "9223372036.854775807"}),
            r#"400 INVALID_REQUEST_BODY "amount" 9223372036.854775807 more is too large a balance"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "9223372036.854775808"}),
            r#"400 INVALID_REQUEST_BODY "amount" amount: the amount is too large"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "1", "reason": "a\u{0}b"}),
            r#"400 INVALID_REQUEST_BODY "reason" a reason has 0 to 256 characters and no control, bidirectional or invisible characters"#,
        ),
        (
            "POST /accounts/test/credits #two",
            json!({"amount": "1", "currency": "EUR"}),
            r#"400 INVALID_REQUEST_BODY "currency" unknown field `currency`, expected `amount` or `reason`"#,
        ),
        (
            "POST /accounts/nobody/credits #two",
            json!({"amount": "1"}),
            r#"404 NOT_FOUND null there is no account "nobody""#,
        ),
        // An idempotency key pays once, even if it is sent to another route.
        (
            "POST /accounts/test/promos #one",
            json!({"amount": "0.000000001", "expires_at": "2027-01-01T00:00:00Z", "reason": "welcome"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /accounts/test/promos #promo",
            json!({"amount": "2", "expires_at": "2027-01-01T00:00:00Z", "reason": "welcome"}),
            r#"{"transaction":3,"account":"ACCT1","amount":"2","balance":"7.000000001","at":"2026-11-22T12:00:00Z","replayed":false}"#,
        ),
        (
            "POST /accounts/test/promos #promo",
            json!({"amount": "2", "expires_at": "2028-01-01T00:00:00Z", "reason": "welcome"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /accounts/test/promos #two",
            json!({"amount": "2", "expires_at": "2026-11-22T12:00:00Z", "reason": "late"}),
            r#"400 INVALID_REQUEST_BODY "expires_at" promotional credit must expire later than now"#,
        ),
        (
            "POST /accounts/test/promos #two",
            json!({"amount": "2", "expires_at": "2027-01-01T00:00:00Z"}),
            r#"400 INVALID_REQUEST_BODY "reason" missing field `reason`"#,
        ),
        (
            "POST /accounts/test/adjustments #mend",
            json!({"amount": "-1.5", "reason": "counted twice"}),
            r#"{"transaction":4,"account":"ACCT1","amount":"-1.5","balance":"5.500000001","at":"2026-11-22T12:00:00Z","replayed":false}"#,
        ),
        (
            "POST /accounts/test/adjustments #mend",
            json!({"amount": "-1.5", "reason": "counted twice"}),
            r#"{"transaction":4,"account":"ACCT1","amount":"-1.5","balance":"5.500000001","at":"2026-11-22T12:00:00Z","replayed":true}"#,
        ),
        (
            "POST /accounts/test/adjustments #mend",
            json!({"amount": "-1.5", "reason": "counted three times"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /accounts/test/credits #one",
            json!({"amount": "0.000000001", "reason": "invoice 17"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /accounts/test/promos #promo",
            json!({"amount": "2", "expires_at": "2027-01-01T00:00:00Z", "reason": "goodbye"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /accounts/test/adjustments #two",
            json!({"amount": "-100", "reason": "too much"}),
            r#"400 INVALID_REQUEST_BODY "amount" -100 can't be taken: 3.500000001 USD of cash and credit are available"#,
        ),
        (
            "POST /accounts/test/adjustments #two",
            json!({"amount": "1", "reason": ""}),
            r#"400 INVALID_REQUEST_BODY "reason" a reason has 1 to 256 characters and no control, bidirectional or invisible characters"#,
        ),
        ("GET /accounts/test", none(), r#"{"id":"ACCT1","name":"test","balance":"5.500000001","held":"0","available":"5.500000001","promo":"2","credit_limit":"0","low_balance":null,"tier":null,"limits":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null},"model_limits":{},"suspended":null,"created_at":"2026-11-22T12:00:00Z","deleted_at":null}"#),
        ("GET /accounts/test/ledger", none(), r#"{"data":[{"id":4,"at":"2026-11-22T12:00:00Z","kind":"adjustment","reason":"counted twice","actor":"key:ADMIN","request":null,"balance":"5.500000001","entries":[{"book":"adjustment","amount":"1.5"},{"book":"wallet:ACCT1","amount":"-1.5"}]},{"id":3,"at":"2026-11-22T12:00:00Z","kind":"promo","reason":"welcome","actor":"key:ADMIN","request":null,"balance":"7.000000001","entries":[{"book":"promo:ACCT1","amount":"2"},{"book":"promotion","amount":"-2"}]},{"id":2,"at":"2026-11-22T12:00:00Z","kind":"credit","reason":"","actor":"key:ADMIN","request":null,"balance":"5.000000001","entries":[{"book":"funding","amount":"-0.000000001"},{"book":"wallet:ACCT1","amount":"0.000000001"}]},{"id":1,"at":"2026-11-22T12:00:00Z","kind":"credit","reason":"for tests","actor":"system","request":null,"balance":"5","entries":[{"book":"funding","amount":"-5"},{"book":"wallet:ACCT1","amount":"5"}]}],"has_more":false,"next":null}"#),
        ("GET /audit?limit=1", none(), r#"{"data":[{"id":8,"at":"2026-11-22T12:00:00Z","actor":"key:ADMIN","act":"credit.adjust","account":"ACCT1","target":"4","before":{"balance":"7.000000001"},"after":{"balance":"5.500000001","amount":"-1.5","reason":"counted twice","idempotency_key":"mend"}}],"has_more":true,"next":"8"}"#),
    ])
    .await;
    assert_eq!(desk.app.accounts.verify().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn refunds() {
    let mut desk = Desk::new().await;
    let answer = desk
        .app
        .post("/v1/chat/completions", chat(json!({"max_tokens": 5})))
        .await;
    desk.name(answer.header("x-request-id").to_owned(), "REQUEST");
    desk.check(&[
        ("GET /accounts/test/usage", none(), r#"{"data":[{"id":1,"account":"ACCT1","key":"KEY0","request":"REQUEST","attempt":1,"model":"sim/chat","prompt_tokens":27,"cached_tokens":0,"completion_tokens":5,"reasoning_tokens":0,"input_price":200,"cached_price":200,"output_price":400,"cost":"0.00000074","promo":"0","outcome":"success","source":"engine","started_at":"2026-11-22T12:00:00Z","ended_at":"2026-11-22T12:00:00Z"}],"has_more":false,"next":null}"#),
        (
            "POST /refunds #one",
            json!({"request": "REQUEST", "amount": "0.0000001", "reason": "cut off"}),
            r#"{"transaction":4,"account":"ACCT1","amount":"0.0000001","balance":"4.99999936","at":"2026-11-22T12:00:00Z","replayed":false}"#,
        ),
        (
            "POST /refunds #one",
            json!({"request": "REQUEST", "amount": "0.0000001", "reason": "cut off"}),
            r#"{"transaction":4,"account":"ACCT1","amount":"0.0000001","balance":"4.99999936","at":"2026-11-22T12:00:00Z","replayed":true}"#,
        ),
        (
            "POST /refunds #one",
            json!({"request": "REQUEST", "amount": "0.0000002", "reason": "cut off"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /refunds #one",
            json!({"request": "REQUEST", "amount": "0.0000001", "reason": "too slow"}),
            r#"409 IDEMPOTENCY_CONFLICT "Idempotency-Key" the idempotency key was used for something else"#,
        ),
        (
            "POST /refunds #two",
            json!({"request": "REQUEST", "amount": "5", "reason": "cut off"}),
            r#"400 INVALID_REQUEST_BODY "amount" 0.00000064 USD of this request can be refunded: it cost 0.00000074 USD"#,
        ),
        (
            "POST /refunds #two",
            json!({"request": "REQUEST", "reason": "cut off"}),
            r#"{"transaction":5,"account":"ACCT1","amount":"0.00000064","balance":"5","at":"2026-11-22T12:00:00Z","replayed":false}"#,
        ),
        (
            "POST /refunds #three",
            json!({"request": "REQUEST", "reason": "cut off"}),
            r#"400 INVALID_REQUEST_BODY "amount" 0 USD of this request can be refunded: it cost 0.00000074 USD"#,
        ),
        (
            "POST /refunds #three",
            json!({"request": "REQUEST", "attempt": 2, "reason": "cut off"}),
            r#"404 NOT_FOUND null there is no charged request "REQUEST""#,
        ),
        (
            "POST /refunds #three",
            json!({"request": "other", "reason": "cut off"}),
            r#"404 NOT_FOUND null there is no charged request "other""#,
        ),
        (
            "POST /refunds #three",
            json!({"request": "a\u{0}b", "reason": "cut off"}),
            r#"400 INVALID_REQUEST_BODY "request" a request's id has no control characters"#,
        ),
        ("POST /refunds #three", json!({"request": "REQUEST"}), r#"400 INVALID_REQUEST_BODY "reason" missing field `reason`"#),
        ("GET /accounts/test/ledger?limit=2", none(), r#"{"data":[{"id":5,"at":"2026-11-22T12:00:00Z","kind":"refund","reason":"cut off","actor":"key:ADMIN","request":"REQUEST","balance":"5","entries":[{"book":"revenue","amount":"-0.00000064"},{"book":"wallet:ACCT1","amount":"0.00000064"}]},{"id":4,"at":"2026-11-22T12:00:00Z","kind":"refund","reason":"cut off","actor":"key:ADMIN","request":"REQUEST","balance":"4.99999936","entries":[{"book":"revenue","amount":"-0.0000001"},{"book":"wallet:ACCT1","amount":"0.0000001"}]}],"has_more":true,"next":"4"}"#),
    ])
    .await;
    assert_eq!(desk.app.accounts.verify().await.unwrap(), [""; 0]);
}

//! Every error of the table, in Novita's and OpenAI's format at once.

use std::collections::HashSet;

use http::{Method, Request};
use insta::assert_snapshot;
use serde_json::json;
use weir_accounts::{AccountChange, KeyOptions, KeyRole, Nanos, SpendCaps, Standing};
use weir_gateway::limits::Quotas;
use weir_inference::sim::{Faults, SimModel, SimOptions};
use weir_server::Reason;
use weir_testkit::{Answer, NOW, Setup, TestApp, body, offer};

use crate::{chat, completion};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// The status, whether there is a `Retry-After`, and the body.
fn shown(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(json["code"], answer.status.as_u16());
    assert_eq!(json["message"], json["error"]["message"]);
    let keys: Vec<_> = json["error"].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["message", "type", "param", "code"],
        "all four, always"
    );
    let words = json["message"]
        .as_str()
        .unwrap()
        .to_lowercase()
        .contains("rate limit");
    assert_eq!(
        words,
        answer.status == 429,
        "litellm makes a rate limit of these words: {json}"
    );
    let limits = [429, 503].contains(&answer.status.as_u16());
    assert!(
        !limits || !answer.header("retry-after").is_empty(),
        "{json}"
    );
    match answer.header("retry-after") {
        "" => format!("{} {json}", answer.status.as_u16()),
        seconds => {
            assert!(
                (1..=60).contains(&seconds.parse::<u64>().unwrap()),
                "{seconds}"
            );
            format!("{} Retry-After {json}", answer.status.as_u16())
        }
    }
}

async fn with_quotas(quotas: Quotas) -> TestApp {
    TestApp::start(Setup {
        quotas,
        ..Setup::default()
    })
    .await
}

async fn with_model(options: SimOptions) -> TestApp {
    let offers = vec![offer("sim/chat", Some(SimModel::new(options)))];
    TestApp::start(Setup {
        offers,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn invalid_request_body() {
    let app = TestApp::new().await;
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"temperature": 3}))).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"temperature must be in [0, 2], got 3","metadata":{},"error":{"message":"temperature must be in [0, 2], got 3","type":"invalid_request_error","param":"temperature","code":null}}"#);
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"audio": {"voice": "x"}}))).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"model: sim/chat does not support feature: audio-output","metadata":{},"error":{"message":"model: sim/chat does not support feature: audio-output","type":"invalid_request_error","param":"audio","code":"unsupported_feature"}}"#);
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"model": "sim/plain"}))).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"model: sim/plain does not support feature: chat","metadata":{},"error":{"message":"model: sim/plain does not support feature: chat","type":"invalid_request_error","param":"model","code":"unsupported_feature"}}"#);
    assert_snapshot!(shown(&app.post(CHAT, "{").await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"the body is not valid JSON: EOF while parsing an object at line 1 column 1","metadata":{},"error":{"message":"the body is not valid JSON: EOF while parsing an object at line 1 column 1","type":"invalid_request_error","param":null,"code":null}}"#);
}

#[tokio::test]
async fn context_length_exceeded() {
    let app = TestApp::new().await;
    let long = "long ".repeat(1000);
    let message = json!([{"role": "user", "content": long}]);
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"messages": message}))).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"This model's maximum context length is 4096 tokens. However, your prompt has 5022 tokens. Please shorten it.","metadata":{},"error":{"message":"This model's maximum context length is 4096 tokens. However, your prompt has 5022 tokens. Please shorten it.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#);
    assert_snapshot!(shown(&app.post(COMPLETIONS, completion(json!({"prompt": long}))).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"This model's maximum context length is 4096 tokens. However, you requested 5009 tokens (5001 in the prompt, 8 for the completion). Please reduce either.","metadata":{},"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5009 tokens (5001 in the prompt, 8 for the completion). Please reduce either.","type":"invalid_request_error","param":"prompt","code":"context_length_exceeded"}}"#);
    let nearly = "x".repeat(4000);
    let both = completion(json!({"prompt": nearly, "max_tokens": 500}));
    assert_snapshot!(shown(&app.post(COMPLETIONS, both).await), @r#"400 {"code":400,"reason":"INVALID_REQUEST_BODY","message":"This model's maximum context length is 4096 tokens. However, you requested 4501 tokens (4001 in the prompt, 500 for the completion). Please reduce either.","metadata":{},"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 4501 tokens (4001 in the prompt, 500 for the completion). Please reduce either.","type":"invalid_request_error","param":"prompt","code":"context_length_exceeded"}}"#);
    let lowered = app
        .post(
            CHAT,
            chat(json!({"messages": [{"role": "user", "content": nearly}], "max_tokens": 500})),
        )
        .await;
    assert_eq!(
        lowered.status,
        200,
        "a chat's limit is lowered instead: {}",
        lowered.text()
    );
}

#[tokio::test]
async fn invalid_api_key() {
    let app = TestApp::new().await;
    let answer = app
        .send(Request::post(CHAT).body(body(chat(json!({})))).unwrap())
        .await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_snapshot!(shown(&answer), @r#"401 {"code":401,"reason":"INVALID_API_KEY","message":"no valid API key: send it as `Authorization: Bearer sk_…`","metadata":{},"error":{"message":"no valid API key: send it as `Authorization: Bearer sk_…`","type":"authentication_error","param":null,"code":"invalid_api_key"}}"#);
}

#[tokio::test]
async fn not_enough_balance() {
    let app = TestApp::start(Setup {
        credit: Nanos::new(0),
        ..Setup::default()
    })
    .await;
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({}))).await), @r#"403 {"code":403,"reason":"NOT_ENOUGH_BALANCE","message":"the balance is too low for this request: it covers 0 output tokens","metadata":{"affordable_output_tokens":"0","reason":"balance_too_low"},"error":{"message":"the balance is too low for this request: it covers 0 output tokens","type":"insufficient_quota","param":null,"code":"insufficient_balance"}}"#);
    let app = TestApp::start(Setup {
        credit: Nanos::new(10_000),
        ..Setup::default()
    })
    .await;
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"max_tokens": 1000}))).await), @r#"403 {"code":403,"reason":"NOT_ENOUGH_BALANCE","message":"the balance is too low for this request: it covers 236 output tokens","metadata":{"affordable_output_tokens":"236","reason":"balance_too_low"},"error":{"message":"the balance is too low for this request: it covers 236 output tokens","type":"insufficient_quota","param":null,"code":"insufficient_balance"}}"#);
}

#[tokio::test]
async fn balance_in_flight() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let offers = vec![offer("sim/chat", Some(model))];
    let app = TestApp::start(Setup {
        offers,
        credit: Nanos::new(50_000),
        ..Setup::default()
    })
    .await;
    let big = chat(json!({"max_tokens": 1000, "stream": true}));
    let open = app.open(app.request(Method::POST, CHAT, big.clone())).await;
    assert_eq!(open.status(), 200);
    assert_snapshot!(shown(&app.post(CHAT, big).await), @r#"403 Retry-After {"code":403,"reason":"NOT_ENOUGH_BALANCE","message":"open requests hold the balance; try again when one of them has ended","metadata":{"reason":"in_flight"},"error":{"message":"open requests hold the balance; try again when one of them has ended","type":"insufficient_quota","param":null,"code":"insufficient_balance"}}"#);
    drop(gate);
}

#[tokio::test]
async fn access_denied() {
    let app = TestApp::new().await;
    let key = app
        .key_with(KeyOptions {
            models: Some(vec!["sim/plain".to_owned()]),
            ..KeyOptions::default()
        })
        .await;
    let request = Request::post(CHAT)
        .header("authorization", key)
        .body(body(chat(json!({}))))
        .unwrap();
    assert_snapshot!(shown(&app.send(request).await), @r#"403 {"code":403,"reason":"ACCESS_DENIED","message":"this key may not use model sim/chat","metadata":{},"error":{"message":"this key may not use model sim/chat","type":"permission_error","param":"model","code":"model_access_denied"}}"#);
}

/// The status, and the characteristic parts of a refusal.
async fn refused(app: &TestApp, key: &str, asked: String) -> String {
    let request = Request::post(CHAT).header("authorization", key);
    let answer = app.send(request.body(body(asked)).unwrap()).await;
    let json = answer.json();
    let waits = answer.headers.contains_key("retry-after");
    format!(
        "{} {} {} {} {} waits={waits}",
        answer.status.as_u16(),
        json["reason"].as_str().unwrap(),
        json["error"]["code"].as_str().unwrap(),
        json["message"].as_str().unwrap(),
        json["metadata"]
    )
}

#[tokio::test]
async fn keys_that_administer_and_accounts_that_are_suspended() {
    let app = TestApp::new().await;
    let options = KeyOptions {
        role: KeyRole::Admin,
        ..KeyOptions::default()
    };
    let admin = app.key_with(options).await;
    assert_snapshot!(refused(&app, &admin, chat(json!({}))).await, @r#"403 ACCESS_DENIED insufficient_permissions a key with the role admin can't be used for this {"reason":"role"} waits=false"#);
    let suspend = AccountChange {
        standing: Some(Standing::Suspended {
            reason: "unpaid".to_owned(),
        }),
        ..AccountChange::default()
    };
    let now = jiff::Timestamp::from_second(NOW).unwrap();
    app.accounts
        .update_account(&app.account.id, suspend, now)
        .await
        .unwrap();
    assert_snapshot!(refused(&app, &app.key, chat(json!({}))).await, @r#"403 ACCESS_DENIED account_suspended the account is suspended {"reason":"account_suspended"} waits=false"#);
}

#[tokio::test]
async fn key_spend_cap() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let offers = vec![offer("sim/chat", Some(model))];
    let app = TestApp::start(Setup {
        offers,
        ..Setup::default()
    })
    .await;
    let options = KeyOptions {
        caps: SpendCaps {
            day: Some(Nanos::new(30_000)),
            ..SpendCaps::default()
        },
        ..KeyOptions::default()
    };
    let key = app.key_with(options).await;
    let ask = |tokens: u32| chat(json!({"max_tokens": tokens, "stream": true}));
    assert_snapshot!(refused(&app, &key, ask(1000)).await, @r#"403 NOT_ENOUGH_BALANCE insufficient_balance this request costs more than what this key's spend cap of this day leaves; that covers 736 output tokens {"affordable_output_tokens":"736","period":"day","reason":"key_spend_cap"} waits=false"#);
    let request = Request::post(CHAT).header("authorization", &key);
    let open = app.open(request.body(body(ask(700))).unwrap()).await;
    assert_eq!(open.status(), 200);
    assert_snapshot!(refused(&app, &key, ask(700)).await, @r#"403 NOT_ENOUGH_BALANCE insufficient_balance this key's open requests hold what its spend cap of this day leaves; that covers 23 output tokens {"affordable_output_tokens":"23","period":"day","reason":"key_spend_cap"} waits=true"#);
    drop(gate);
}

#[tokio::test]
async fn not_found() {
    let app = TestApp::new().await;
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"model": "foo"}))).await), @r#"404 {"code":404,"reason":"MODEL_NOT_FOUND","message":"model not found: foo","metadata":{},"error":{"message":"model not found: foo","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#);
    assert_snapshot!(shown(&app.get("/v1/models/foo").await), @r#"404 {"code":404,"reason":"MODEL_NOT_FOUND","message":"model not found: foo","metadata":{},"error":{"message":"model not found: foo","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#);
    assert_snapshot!(shown(&app.get("/v1/engines").await), @r#"404 {"code":404,"reason":"NOT_FOUND","message":"no such path: /v1/engines","metadata":{},"error":{"message":"no such path: /v1/engines","type":"invalid_request_error","param":null,"code":"not_found"}}"#);
    // Words with a special meaning for clients are changed in messages.
    shown(&app.post(CHAT, chat(json!({"model": "Rate Limit"}))).await);
    // A message repeats only the beginning of a long text.
    assert!(
        app.post(CHAT, chat(json!({"model": "m".repeat(100_000)})))
            .await
            .body
            .len()
            < 3000
    );
}

#[tokio::test]
async fn method_not_allowed() {
    let app = TestApp::new().await;
    let answer = app.get(CHAT).await;
    assert_eq!(answer.header("allow"), "POST");
    assert_snapshot!(shown(&answer), @r#"405 {"code":405,"reason":"METHOD_NOT_ALLOWED","message":"method GET is not allowed here; see the header Allow","metadata":{},"error":{"message":"method GET is not allowed here; see the header Allow","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}"#);
}

#[tokio::test]
async fn request_too_large() {
    let app = TestApp::new().await;
    assert_snapshot!(shown(&app.post(CHAT, vec![b' '; 16 * 1024 * 1024 + 1]).await), @r#"413 {"code":413,"reason":"REQUEST_TOO_LARGE","message":"the body is larger than 16777216 bytes","metadata":{},"error":{"message":"the body is larger than 16777216 bytes","type":"invalid_request_error","param":null,"code":"request_too_large"}}"#);
}

#[tokio::test]
async fn rate_limit_exceeded() {
    let app = with_quotas(Quotas {
        requests_per_minute: Some(1),
        ..Quotas::default()
    })
    .await;
    assert_eq!(app.post(CHAT, chat(json!({}))).await.status, 200);
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({}))).await), @r#"429 Retry-After {"code":429,"reason":"RATE_LIMIT_EXCEEDED","message":"rate limit exceeded: too many requests per minute","metadata":{},"error":{"message":"rate limit exceeded: too many requests per minute","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#);
}

#[tokio::test]
async fn concurrent_requests() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let quotas = Quotas {
        concurrent_requests: Some(1),
        ..Quotas::default()
    };
    let app = TestApp::start(Setup {
        offers: vec![offer("sim/chat", Some(model))],
        quotas,
        ..Setup::default()
    })
    .await;
    let open = app
        .open(app.request(Method::POST, CHAT, chat(json!({"stream": true}))))
        .await;
    assert_eq!(open.status(), 200);
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({}))).await), @r#"429 Retry-After {"code":429,"reason":"RATE_LIMIT_EXCEEDED","message":"rate limit exceeded: more than 1 concurrent requests","metadata":{},"error":{"message":"rate limit exceeded: more than 1 concurrent requests","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#);
    drop(gate);
}

#[tokio::test]
async fn token_limit_exceeded() {
    let app = with_quotas(Quotas {
        tokens_per_minute: Some(100),
        ..Quotas::default()
    })
    .await;
    assert_eq!(
        app.post(CHAT, chat(json!({"max_tokens": 100})))
            .await
            .status,
        200
    );
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"max_tokens": 1000}))).await), @r#"429 Retry-After {"code":429,"reason":"TOKEN_LIMIT_EXCEEDED","message":"rate limit exceeded: too many tokens per minute","metadata":{},"error":{"message":"rate limit exceeded: too many tokens per minute","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#);
}

#[tokio::test]
async fn model_not_available() {
    let app = TestApp::new().await;
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({"model": "sim/down"}))).await), @r#"500 {"code":500,"reason":"MODEL_NOT_AVAILABLE","message":"model sim/down is not available at the moment","metadata":{},"error":{"message":"model sim/down is not available at the moment","type":"server_error","param":null,"code":"model_not_available"}}"#);
}

#[tokio::test]
async fn internal_error() {
    let faults = Faults {
        fault_at: Some(0),
        ..Faults::default()
    };
    let app = with_model(SimOptions {
        faults,
        ..SimOptions::default()
    })
    .await;
    let answer = app.post(CHAT, chat(json!({}))).await;
    assert_snapshot!(shown(&answer), @r#"500 {"code":500,"reason":"INTERNAL_ERROR","message":"an internal error; the request's id is in the header x-request-id","metadata":{},"error":{"message":"an internal error; the request's id is in the header x-request-id","type":"server_error","param":null,"code":"internal_error"}}"#);
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn service_not_available() {
    let app = TestApp::new().await;
    app.app.gateway.drain();
    assert_snapshot!(shown(&app.post(CHAT, chat(json!({}))).await), @r#"503 Retry-After {"code":503,"reason":"SERVICE_NOT_AVAILABLE","message":"the service is overloaded; try again later","metadata":{},"error":{"message":"the service is overloaded; try again later","type":"server_error","param":null,"code":"overloaded"}}"#);
    assert_snapshot!(shown(&app.get("/ready").await), @r#"503 Retry-After {"code":503,"reason":"SERVICE_NOT_AVAILABLE","message":"not ready to serve requests: the process is ending","metadata":{},"error":{"message":"not ready to serve requests: the process is ending","type":"server_error","param":null,"code":"overloaded"}}"#);
}

/// The table itself: every reason has a name and a fault for the log, and a status by which clients tell errors apart.
#[test]
fn the_table() {
    let rows: Vec<_> = Reason::ALL.iter().map(|reason| reason.row()).collect();
    let table: String = rows
        .iter()
        .map(|row| {
            format!(
                "{} {} {} {} {} {}\n",
                row.name,
                row.fault.name(),
                row.status,
                row.reason,
                row.kind,
                row.code.unwrap_or("null")
            )
        })
        .collect();
    let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a name stands for two reasons");
    assert_snapshot!(table, @r#"
    invalid_request caller 400 INVALID_REQUEST_BODY invalid_request_error null
    prompt_too_long caller 400 INVALID_REQUEST_BODY invalid_request_error context_length_exceeded
    unsupported_feature caller 400 INVALID_REQUEST_BODY invalid_request_error unsupported_feature
    invalid_bill_cycle caller 400 INVALID_BILL_CYCLE invalid_request_error null
    invalid_product_category caller 400 INVALID_PRODUCT_CATEGORY invalid_request_error null
    invalid_api_key caller 401 INVALID_API_KEY authentication_error invalid_api_key
    balance_too_low caller 403 NOT_ENOUGH_BALANCE insufficient_quota insufficient_balance
    balance_in_flight caller 403 NOT_ENOUGH_BALANCE insufficient_quota insufficient_balance
    key_spend_cap caller 403 NOT_ENOUGH_BALANCE insufficient_quota insufficient_balance
    model_access_denied caller 403 ACCESS_DENIED permission_error model_access_denied
    role_denied caller 403 ACCESS_DENIED permission_error insufficient_permissions
    account_suspended caller 403 ACCESS_DENIED permission_error account_suspended
    model_not_found caller 404 MODEL_NOT_FOUND invalid_request_error model_not_found
    not_found caller 404 NOT_FOUND invalid_request_error not_found
    method_not_allowed caller 405 METHOD_NOT_ALLOWED invalid_request_error method_not_allowed
    name_taken caller 409 NAME_TAKEN invalid_request_error name_taken
    idempotency_conflict caller 409 IDEMPOTENCY_CONFLICT invalid_request_error idempotency_conflict
    key_made caller 409 KEY_MADE invalid_request_error key_made
    own_account caller 409 OWN_ACCOUNT invalid_request_error own_account
    account_not_empty caller 409 ACCOUNT_NOT_EMPTY invalid_request_error account_not_empty
    config_invalid caller 409 CONFIG_INVALID invalid_request_error config_invalid
    request_too_large caller 413 REQUEST_TOO_LARGE invalid_request_error request_too_large
    bill_limit caller 429 LIST_BILL_TOO_FAST requests rate_limit_exceeded
    request_limit caller 429 RATE_LIMIT_EXCEEDED requests rate_limit_exceeded
    concurrency_limit caller 429 RATE_LIMIT_EXCEEDED requests rate_limit_exceeded
    grammar_work_limit caller 429 RATE_LIMIT_EXCEEDED requests rate_limit_exceeded
    key_bytes_in_flight caller 429 RATE_LIMIT_EXCEEDED requests rate_limit_exceeded
    address_connections caller 429 RATE_LIMIT_EXCEEDED requests rate_limit_exceeded
    token_limit caller 429 TOKEN_LIMIT_EXCEEDED tokens rate_limit_exceeded
    slow_reader caller 500 MODEL_NOT_AVAILABLE server_error model_not_available
    not_implemented caller 501 NOT_IMPLEMENTED invalid_request_error not_implemented
    queue_full load 503 SERVICE_NOT_AVAILABLE server_error overloaded
    ledger_queue_full load 503 SERVICE_NOT_AVAILABLE server_error overloaded
    bytes_in_flight load 503 SERVICE_NOT_AVAILABLE server_error overloaded
    connections_busy load 503 SERVICE_NOT_AVAILABLE server_error overloaded
    draining load 503 SERVICE_NOT_AVAILABLE server_error overloaded
    model_not_available server 500 MODEL_NOT_AVAILABLE server_error model_not_available
    internal_error server 500 INTERNAL_ERROR server_error internal_error
    store_unavailable server 503 SERVICE_NOT_AVAILABLE server_error overloaded
    limits_unavailable server 503 SERVICE_NOT_AVAILABLE server_error overloaded
    not_ready server 503 SERVICE_NOT_AVAILABLE server_error overloaded
    stopped server 503 SERVICE_NOT_AVAILABLE server_error overloaded
    "#);
}

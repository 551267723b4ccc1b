//! A caller's view of its account and key: Novita's billing routes, and `GET key`.

use http::{Method, Request};
use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_accounts::{KeyOptions, Nanos, SpendCaps};
use weir_testkit::{NOW, TestApp, body};

use crate::chat;

const LIST: &str = "/openapi/v1/billing/bill/list";

/// An app with usage on its account.
async fn used() -> TestApp {
    let app = TestApp::new().await;
    for max_tokens in [3, 5] {
        let answer = app
            .post(
                "/v1/chat/completions",
                chat(json!({"max_tokens": max_tokens})),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    app
}

async fn get(app: &TestApp, path: &str) -> Value {
    let answer = app.send(app.request(Method::GET, path, "")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// The answer, with the values that differ between runs replaced.
async fn shown(app: &TestApp, path: &str) -> String {
    let account = &app.account.id;
    let key = app.key.split('_').nth(1).unwrap().to_owned();
    let answer = app.send(app.request(Method::GET, path, "")).await;
    let text = answer.text().replace(account.as_str(), "acct_X");
    text.replace(&key, "KEY")
}

#[tokio::test]
async fn the_balance() {
    let app = used().await;
    assert_snapshot!(shown(&app, "/openapi/v1/billing/balance/detail").await, @r#"{"availableBalance":"49999","cashBalance":"49999","creditLimit":"0","pendingCharges":"0","outstandingInvoices":"0"}"#);
    assert_snapshot!(shown(&app, "/v3/user").await, @r#"{"allow_features":[],"credit_balance":49999,"free_trial":{}}"#);
}

#[tokio::test]
async fn bills() {
    let app = used().await;
    assert_snapshot!(shown(&app, LIST).await, @r#"{"bills":[{"userId":"acct_X","startTime":"1795305600","endTime":"1795392000","billingMethod":"token","productName":"sim/chat","category":"llm","ownerID":"acct_X","billNum0":"54","billNum1":"8","basePrice0":"200","basePrice1":"400","discountPrice0":"200","discountPrice1":"400","amount":"0","voucherAmount":"0","payAmount":"0","payAmountDisplay":"0.0000014","pricePrecision":"10000","productId":"sim/chat"}]}"#);
    assert_snapshot!(shown(&app, "/openapi/v1/billing/monthly/bill").await, @r#"{"data":[{"billId":"acct_X-2026-11","userId":"acct_X","billingMonth":"2026-11","totalAmount":"0","originTotalAmount":"0","voucherPayAmount":"0","cashPayAmount":"0","debtAmount":"0","status":"pending","invoiceUrl":"","startTime":"1793491200","endTime":"1796083200","repaidAmount":"0"}]}"#);
    // The sums are those of the usage records, for every cycle and category.
    let usage = app.accounts.usage(&app.account.id, 10).await.unwrap();
    let prompt: u64 = usage.iter().map(|record| record.counts.prompt).sum();
    for cycle in ["Hour", "Day", "Week", "Month"] {
        for category in ["llm", "summary"] {
            let path = format!("{LIST}?cycleType={cycle}&productCategory={category}");
            let bills = get(&app, &path).await["bills"].clone();
            assert_eq!(bills.as_array().unwrap().len(), 1, "{path}");
            assert_eq!(bills[0]["billNum0"], prompt.to_string(), "{path}");
        }
    }
    for none in [
        "productName=other".to_owned(),
        "ownerId=acct_other".to_owned(),
        format!("endTime={}", NOW - 100 * 86_400),
        "startTime=1000&endTime=1000".to_owned(),
    ] {
        let bills = get(&app, &format!("{LIST}?{none}")).await;
        assert_eq!(bills, json!({"bills": []}), "{none}");
    }
}

#[tokio::test]
async fn queries_that_make_no_sense() {
    let app = TestApp::new().await;
    let check = async |query: &str, reason: &str, param: &str| {
        let path = format!("{LIST}?{query}");
        let answer = app.send(app.request(Method::GET, &path, "")).await;
        let error = answer.json();
        assert_eq!(answer.status, 400, "{query}: {error}");
        assert_eq!(
            (&error["reason"], &error["error"]["param"]),
            (&json!(reason), &json!(param)),
            "{query}"
        );
    };
    check("cycleType=Year", "INVALID_BILL_CYCLE", "cycleType").await;
    check(
        "productCategory=gpu",
        "INVALID_PRODUCT_CATEGORY",
        "productCategory",
    )
    .await;
    for query in [
        "startTime=x",
        "startTime=99999999999999999999",
        "startTime=2000&endTime=1000",
        "startTime=0&endTime=3000000&cycleType=Hour",
        "startTime=0",
    ] {
        check(query, "INVALID_REQUEST_BODY", "startTime").await;
    }
    check("endTime=soon", "INVALID_REQUEST_BODY", "endTime").await;
}

#[tokio::test]
async fn the_key() {
    let app = used().await;
    assert_snapshot!(shown(&app, "/v1/key").await, @r#"{"data":{"label":"KEY","name":null,"created_at":1795348800,"expires_at":null,"models":null,"usage":0.0000014,"usage_daily":0.0000014,"usage_weekly":0.0000014,"usage_monthly":0.0000014,"held":0,"limit":null,"limit_monthly":null,"limit_daily":null,"limit_remaining":4.9999986,"rate_limit":{"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null}}}"#);
    let capped = app
        .key_with(KeyOptions {
            name: Some("capped".to_owned()),
            models: Some(vec!["sim/chat".to_owned()]),
            caps: SpendCaps {
                total: Some(Nanos::new(2_000_000_000)),
                day: Some(Nanos::new(1_500_000_001)),
                ..SpendCaps::default()
            },
            ..KeyOptions::default()
        })
        .await;
    let request = Request::get("/openai/v1/key").header("authorization", capped);
    let answer = app.send(request.body(body("")).unwrap()).await.json();
    let data = &answer["data"];
    assert_eq!(data["limit"], json!(2));
    assert_eq!(data["limit_daily"].to_string(), "1.500000001");
    assert_eq!(data["limit_remaining"].to_string(), "1.500000001");
    assert_eq!(data["usage"], json!(0));
    assert_eq!(data["models"], json!(["sim/chat"]));
}

#[tokio::test]
async fn bills_have_a_limit() {
    let app = TestApp::new().await;
    // One request per second becomes available again, and these requests come faster.
    let mut listed = 0;
    let refused = loop {
        let answer = app.send(app.request(Method::GET, LIST, "")).await;
        if answer.status != 200 {
            break answer;
        }
        listed += 1;
    };
    assert!(listed >= weir_gateway::BILLS_PER_MINUTE, "{listed}");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["reason"], "LIST_BILL_TOO_FAST");
    assert_eq!(refused.header("retry-after"), "1");
}

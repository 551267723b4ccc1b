//! A common beginning of prompts is computed once and costs less: `cached_tokens` in the answer, in the record and in
//! the cost.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_inference::local::{CacheSharing, LocalEngine};
use weir_inference::sim::{self, SimModel, SimOptions};
use weir_testkit::{Setup, TestApp, now, offer_of};

use crate::completion;

const PATH: &str = "/v1/completions";

async fn app(prefix_cache: CacheSharing) -> TestApp {
    let mut options = sim::options();
    options.prefix_cache = prefix_cache;
    let engine = LocalEngine::spawn(SimModel::new(SimOptions::default()), options).unwrap();
    let mut offer = offer_of("sim/plain", Some(Arc::new(engine)));
    offer.price.cached = Some(50);
    TestApp::start(Setup {
        offers: vec![offer],
        ..Setup::default()
    })
    .await
}

/// Sends a prompt with a key. Returns its tokens and how many of them were cached, after comparing both with the usage
/// record.
async fn ask(app: &mut TestApp, key: &str, prompt: &str) -> (u64, u64) {
    app.key = key.to_owned();
    let body = completion(json!({"prompt": prompt, "max_tokens": 1}));
    let answer = app.post(PATH, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let usage: Value = answer.json()["usage"].clone();
    let number = |name: &str| usage.pointer(name).and_then(Value::as_u64).unwrap();
    let (prompt, cached) = (
        number("/prompt_tokens"),
        number("/prompt_tokens_details/cached_tokens"),
    );
    app.app.gateway.settled().await;
    let caller = app.accounts.authenticate(key, now()).await.unwrap();
    let records = app.accounts.usage(&caller.account, 1).await.unwrap();
    let record = &records[0];
    assert_eq!(
        (record.counts.prompt, record.counts.cached),
        (prompt, cached)
    );
    let tenths = (prompt - cached) * 200 + cached * 50 + number("/completion_tokens") * 400;
    assert_eq!(record.cost.get().unsigned_abs(), tenths.div_ceil(10));
    (prompt, cached)
}

#[tokio::test]
async fn what_was_sent_before_is_cheaper_for_the_same_account() {
    let beginning = "The stone under the water is old, and nobody knows who put it there. ";
    let rows = [
        (CacheSharing::Account, [true, false]),
        (CacheSharing::Everybody, [true, true]),
        (CacheSharing::Off, [false, false]),
    ];
    for (prefix_cache, [own, others]) in rows {
        let mut app = app(prefix_cache).await;
        let key = app.key.clone();
        let stranger = app.accounts.add_account("stranger", now()).await.unwrap();
        let credit = weir_accounts::Nanos::new(1_000_000);
        app.accounts
            .credit(&stranger.id, credit, "other", "for tests", now())
            .await
            .unwrap();
        let strangers = app
            .accounts
            .add_key(&stranger.id, None, now())
            .await
            .unwrap();
        let strangers = strangers.secret.expose().to_owned();

        assert_eq!(ask(&mut app, &key, &format!("{beginning}One")).await.1, 0);
        let (prompt, cached) = ask(&mut app, &strangers, &format!("{beginning}Two")).await;
        assert_eq!(cached > 0, others, "{prefix_cache:?}: {cached} of {prompt}");
        let (prompt, cached) = ask(&mut app, &key, &format!("{beginning}Three")).await;
        assert_eq!(cached > 0, own, "{prefix_cache:?}: {cached} of {prompt}");
        assert!(
            cached < prompt && (!own || cached * 10 > prompt * 7),
            "{cached} of {prompt}"
        );
    }
}

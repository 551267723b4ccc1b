//! Limits of keys, of accounts and of models, as the API shows them.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::{Method, header};
use serde_json::json;
use weir_accounts::{AccountChange, KeyOptions, Nanos, Quotas, Tier};
use weir_engine::embed::Shortening;
use weir_gateway::TierRule;
use weir_testkit::{Answer, Setup, TestApp, offer_of};

use crate::embeddings::embedder;
use crate::{chat, completion};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn requests(limit: u32) -> Quotas {
    Quotas {
        requests_per_minute: Some(limit),
        ..Quotas::default()
    }
}

fn tier(tier: Tier, top_up_usd: i64, limit: u32) -> TierRule {
    TierRule {
        tier,
        top_up: Nanos::from_usd(top_up_usd).unwrap(),
        quotas: requests(limit),
        weight: NonZeroU32::MIN,
    }
}

/// Sends a request for `sim/chat` or `sim/plain` with a key.
async fn ask(app: &TestApp, path: &str, key: &str) -> Answer {
    let text = match path {
        CHAT => chat(json!({})),
        _ => completion(json!({})),
    };
    let mut request = app.request(Method::POST, path, text);
    let bearer = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    app.send(request).await
}

/// The status, and the headers for the limit of requests.
fn seen(answer: &Answer) -> (u16, &str, &str) {
    (
        answer.status.as_u16(),
        answer.header("x-ratelimit-limit-requests"),
        answer.header("x-ratelimit-remaining-requests"),
    )
}

#[tokio::test]
async fn tiers_limit_an_account_for_each_model() {
    let app = TestApp::start(Setup {
        quotas: requests(5),
        tiers: vec![tier(Tier::T1, 0, 2), tier(Tier::T2, 50, 100)],
        ..Setup::default()
    })
    .await;
    let second = app.key_with(KeyOptions::default()).await;
    let first = &app.key;
    assert_eq!(seen(&ask(&app, CHAT, first).await), (200, "2", "1"));
    assert_eq!(seen(&ask(&app, CHAT, &second).await), (200, "2", "0"));
    assert_eq!(seen(&ask(&app, CHAT, first).await), (429, "2", "0"));
    assert_eq!(
        seen(&ask(&app, COMPLETIONS, first).await),
        (200, "2", "1"),
        "another model"
    );
    assert_eq!(seen(&ask(&app, COMPLETIONS, first).await), (200, "2", "0"));
    let nothing = app.post(CHAT, "{").await;
    assert_eq!(
        seen(&nothing),
        (400, "5", "2"),
        "no model was asked for; refused requests did not count for the key"
    );

    let rich = app
        .accounts
        .add_account("rich", weir_testkit::now())
        .await
        .unwrap();
    app.accounts
        .credit(
            &rich.id,
            Nanos::from_usd(50).unwrap(),
            "rich",
            "",
            weir_testkit::now(),
        )
        .await
        .unwrap();
    let key = app
        .accounts
        .add_key(&rich.id, None, weir_testkit::now())
        .await
        .unwrap();
    let key = key.secret.expose();
    assert_eq!(
        seen(&ask(&app, CHAT, key).await),
        (200, "5", "4"),
        "in T2 the key's limit is the tighter one"
    );
}

/// Limits that are set on an account take precedence over its tier's, from its next request on.
#[tokio::test]
async fn an_account_may_have_limits_of_its_own() {
    let app = TestApp::start(Setup {
        tiers: vec![tier(Tier::T1, 0, 2), tier(Tier::T4, 3000, 50)],
        ..Setup::default()
    })
    .await;
    let change = async |change: AccountChange| {
        let by = weir_testkit::now();
        let changed = app.accounts.update_account(&app.account.id, change, by);
        changed.await.unwrap();
    };
    let key = &app.key;
    assert_eq!(seen(&ask(&app, CHAT, key).await), (200, "2", "1"));
    change(AccountChange {
        tier: Some(Some(Tier::T5)),
        ..AccountChange::default()
    })
    .await;
    let answer = ask(&app, CHAT, key).await;
    assert_eq!(seen(&answer).1, "50", "of the highest tier that has limits");
    change(AccountChange {
        limits: Some(requests(7)),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(seen(&ask(&app, COMPLETIONS, key).await), (200, "7", "6"));
}

/// Limits set for a model take precedence over those set for every model, and these over the tier's.
#[tokio::test]
async fn an_account_may_have_limits_for_a_model() {
    let mut setup = Setup {
        tiers: vec![tier(Tier::T1, 0, 2)],
        ..Setup::default()
    };
    let embed = Arc::new(embedder(Shortening::Never));
    setup.offers.push(offer_of("sim/embed", Some(embed)));
    let app = TestApp::start(setup).await;
    let by = weir_testkit::now();
    let change = async |change: AccountChange| {
        let changed = app.accounts.update_account(&app.account.id, change, by);
        changed.await.unwrap();
    };
    let key = &app.key;
    let of_chat = |limits| {
        let models = [("sim/chat", limits), ("sim/embed", requests(4))];
        models
            .map(|(model, limits)| (model.to_owned(), limits))
            .into_iter()
            .collect()
    };
    change(AccountChange {
        model_limits: Some(of_chat(requests(3))),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(seen(&ask(&app, CHAT, key).await), (200, "3", "2"));
    assert_eq!(seen(&ask(&app, COMPLETIONS, key).await), (200, "2", "1"));
    let embed = json!({"model": "sim/embed", "input": "x"}).to_string();
    let answer = app.post("/v1/embeddings", embed).await;
    assert_eq!(seen(&answer), (200, "4", "3"));
    change(AccountChange {
        limits: Some(requests(9)),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(seen(&ask(&app, CHAT, key).await), (200, "3", "1"));
    assert_eq!(seen(&ask(&app, COMPLETIONS, key).await).1, "9");
    let asked = json!({"model": "sim/chat", "prompt": "x", "tokens": [1]});
    for path in ["/v1/tokenize", "/v1/detokenize"] {
        let answer = app.post(path, asked.to_string()).await;
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "3", "{path}");
    }
    // The two requests before have used up the limit.
    for (path, asked) in [
        (CHAT, chat(json!({}))),
        ("/v1/tokenize", asked.to_string()),
        ("/v1/detokenize", asked.to_string()),
        (
            "/v1/count",
            json!({"model": "sim/chat", "prompt": "x"}).to_string(),
        ),
        (COMPLETIONS, completion(json!({"model": "sim/chat"}))),
    ] {
        let answer = app.post(path, asked).await;
        assert_eq!(seen(&answer), (429, "3", "0"), "{path}");
    }
    change(AccountChange {
        model_limits: Some(of_chat(Quotas::default())),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(seen(&ask(&app, CHAT, key).await).1, "9");
}

#[tokio::test]
async fn a_key_may_have_limits_of_its_own() {
    let app = TestApp::start(Setup {
        quotas: Quotas {
            requests_per_minute: Some(1),
            concurrent_requests: Some(9),
            ..Quotas::default()
        },
        ..Setup::default()
    })
    .await;
    let own = app
        .key_with(KeyOptions {
            limits: requests(3),
            ..KeyOptions::default()
        })
        .await;
    for left in ["2", "1", "0"] {
        assert_eq!(seen(&ask(&app, CHAT, &own).await), (200, "3", left));
    }
    assert_eq!(seen(&ask(&app, CHAT, &own).await), (429, "3", "0"));
    assert_eq!(seen(&ask(&app, CHAT, &app.key).await), (200, "1", "0"));
}

/// Parallel requests of six times the limit stay within the limit.
#[tokio::test]
async fn parallel_requests_stay_within_the_limit() {
    let app = TestApp::start(Setup {
        quotas: requests(3),
        ..Setup::default()
    })
    .await;
    let at_once = (0..18).map(|_| ask(&app, CHAT, &app.key));
    let answers = futures::future::join_all(at_once).await;
    let mut statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 3], vec![429; 15]].concat());
}

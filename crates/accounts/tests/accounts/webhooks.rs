//! Events are written once for each webhook that subscribes, and one process at a time delivers each.

use serde_json::{Value, json};
use weir_accounts::{
    AccountChange, Accounts, Adjustment, EventKind, HoldError, KeyOptions, KeyRole, NewHold, Promo,
    Role, Settlement, Subscription,
};

use crate::fixture::{Fixture, at, nanos, open, options, success, tokens};

const DAY: i64 = 86_400;
/// The first second of a UTC day.
const MIDNIGHT: i64 = DAY - 1_700_000_000 % DAY;
/// A time at which every delivery is due.
const LATE: i64 = 100 * DAY;

fn to(webhook: &str, kinds: &[EventKind]) -> Subscription {
    Subscription {
        webhook: webhook.to_owned(),
        kinds: kinds.to_vec(),
    }
}

/// A server with an account, all of whose later events go to `hook`.
async fn subscribed(credit: i64) -> Fixture {
    let fixture = Fixture::with(credit).await;
    let all = vec![to("hook", &EventKind::ALL)];
    fixture.accounts.subscribe(all).await.unwrap();
    fixture
}

/// The events that a webhook has not received yet, oldest first. Ends their deliveries.
async fn told(accounts: &Accounts, webhook: &str) -> Vec<Value> {
    let mut bodies = Vec::new();
    while let Some(delivery) = accounts
        .claim_delivery(webhook, at(LATE), at(LATE + 10))
        .await
        .unwrap()
    {
        let body: Value = serde_json::from_str(&delivery.body).unwrap();
        assert_eq!(body["type"], *delivery.kind);
        bodies.push(body);
        accounts.end_delivery(delivery).await.unwrap();
    }
    bodies
}

async fn kinds(fixture: &Fixture) -> Vec<String> {
    let bodies = told(&fixture.accounts, "hook").await;
    let kind = |body: &Value| body["type"].as_str().unwrap().to_owned();
    bodies.iter().map(kind).collect()
}

async fn change(fixture: &Fixture, change: AccountChange) {
    let account = &fixture.caller.account;
    let changed = fixture.accounts.update_account(account, change, at(0));
    changed.await.unwrap();
}

async fn warn_below(fixture: &Fixture, amount: i64) {
    let low = AccountChange {
        low_balance: Some(Some(nanos(amount))),
        ..AccountChange::default()
    };
    change(fixture, low).await;
}

/// A request that holds `held` and costs `cost` nano-USD.
async fn spend(fixture: &Fixture, request: &str, held: i64, cost: i64, second: i64) {
    let new = NewHold {
        now: at(second),
        ..fixture.hold(request, held)
    };
    let hold = fixture.accounts.hold(new).unwrap().durable().await.unwrap();
    let settlement = Settlement {
        now: at(second),
        ..success(tokens(u64::try_from(cost).unwrap(), 0))
    };
    fixture.accounts.settle(hold, settlement).await.unwrap();
}

#[tokio::test]
async fn each_is_told_what_it_wants() {
    let fixture = Fixture::with(100).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let webhooks = vec![
        to("money", &[EventKind::CreditAdded, EventKind::BalanceLow]),
        to("keys", &[EventKind::KeyCreated]),
    ];
    accounts.subscribe(webhooks).await.unwrap();
    for _ in 0..2 {
        // The second credit is a replay.
        let paid = accounts.credit(account, nanos(5_000), "k", "", at(7)).await;
        assert_eq!(paid.unwrap().posted, nanos(5_100));
    }
    let options = KeyOptions {
        name: Some("ci".to_owned()),
        role: KeyRole::Viewer,
        ..KeyOptions::default()
    };
    let key = accounts.add_key_with(account, options, at(8)).await;
    let key = key.unwrap();

    let mut money = told(accounts, "money").await;
    assert!(money[0]["data"]["transaction"].take().is_i64());
    let paid = json!({
        "type": "credit.added",
        "timestamp": at(7).to_string(),
        "data": {
            "account": account.as_str(), "account_name": "demo", "amount": "0.000005", "balance": "0.0000051",
            "transaction": null,
        },
    });
    assert_eq!(money, [paid], "nothing that was before");
    let keys = told(accounts, "keys").await;
    let made = json!({
        "type": "key.created",
        "timestamp": at(8).to_string(),
        "data": {
            "account": account.as_str(), "account_name": "demo", "key": key.id.as_str(), "key_name": "ci",
            "role": "viewer",
        },
    });
    assert_eq!(keys, [made]);
    let secret = key.secret.expose().rsplit('_').next().unwrap();
    assert!(!keys[0].to_string().contains(secret));
    assert_eq!(told(accounts, "money").await, [] as [Value; 0], "only once");
    assert_eq!(told(accounts, "nobody").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_low_balance_is_told_once_a_day() {
    let fixture = subscribed(1_000).await;
    warn_below(&fixture, 500).await;
    let nothing: [String; 0] = [];

    // Money that is held isn't spent: most of it comes back.
    spend(&fixture, "r1", 900, 100, 1).await;
    assert_eq!(kinds(&fixture).await, nothing, "900 of 500");
    spend(&fixture, "r2", 900, 400, 2).await;
    assert_eq!(kinds(&fixture).await, nothing, "just enough");
    spend(&fixture, "r3", 500, 1, 3).await;
    let told = told(&fixture.accounts, "hook").await;
    let [low] = &told[..] else {
        panic!("one event, not {told:?}")
    };
    assert_eq!(low["type"], "balance.low");
    assert_eq!(low["data"]["balance"], "0.000000499");
    assert_eq!(low["data"]["low_balance"], "0.0000005");
    spend(&fixture, "r4", 10, 1, 4).await;
    spend(&fixture, "r5", 10, 1, MIDNIGHT - 1).await;
    assert_eq!(kinds(&fixture).await, nothing, "once that day");
    spend(&fixture, "r6", 10, 1, MIDNIGHT).await;
    spend(&fixture, "r7", 10, 1, MIDNIGHT + 1).await;
    assert_eq!(kinds(&fixture).await, ["balance.low"], "the next day");

    // The credit limit counts as money that is left.
    let limit = AccountChange {
        credit_limit: Some(nanos(1_000)),
        ..AccountChange::default()
    };
    change(&fixture, limit).await;
    spend(&fixture, "r8", 10, 1, MIDNIGHT + DAY).await;
    assert_eq!(kinds(&fixture).await, nothing);
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_balance_gets_low_without_requests_too() {
    let fixture = subscribed(1_000).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let promo = Promo {
        account: account.clone(),
        amount: nanos(50),
        expires_at: at(MIDNIGHT + 5).into(),
        idempotency_key: "promo".to_owned(),
        reason: "welcome".to_owned(),
    };
    accounts.give_promo(promo, at(1)).await.unwrap();
    warn_below(&fixture, 1_001).await;
    let taken = Adjustment {
        account: account.clone(),
        amount: nanos(-50),
        idempotency_key: "a".to_owned(),
        reason: "a mistake".to_owned(),
    };
    accounts.adjust(taken, at(2)).await.unwrap();
    assert_eq!(kinds(&fixture).await, ["balance.low"], "1000 are left");
    accounts.expire(at(MIDNIGHT + 5)).await.unwrap();
    assert_eq!(kinds(&fixture).await, ["balance.low"], "the promo is gone");
    fixture.assert_books().await;
}

#[tokio::test]
async fn an_exhausted_balance_is_told_once_a_day() {
    let fixture = subscribed(100).await;
    let nothing: [String; 0] = [];
    let hold = |request: &str, amount: i64, second: i64| NewHold {
        now: at(second),
        ..fixture.hold(request, amount)
    };
    let held = fixture.accounts.hold(hold("r1", 60, 1)).unwrap();
    let mut held = held.durable().await.unwrap();
    let refused = async |new: NewHold| {
        let refusal = fixture.accounts.hold(new).unwrap().durable().await;
        refusal.unwrap_err()
    };
    let busy = refused(hold("r2", 60, 2)).await;
    assert!(matches!(busy, HoldError::InFlight { .. }), "{busy:?}");
    fixture.written().await;
    assert_eq!(kinds(&fixture).await, nothing, "open requests hold it");

    for second in [3, 4, MIDNIGHT, MIDNIGHT + 1] {
        let low = refused(hold("r3", 101, second)).await;
        assert!(matches!(low, HoldError::BalanceTooLow { .. }), "{low:?}");
        fixture.written().await;
    }
    let told = told(&fixture.accounts, "hook").await;
    let at_midnight = at(MIDNIGHT).to_string();
    let times: Vec<_> = told.iter().map(|body| &body["timestamp"]).collect();
    assert_eq!(times, [&at(3).to_string(), &at_midnight]);
    assert_eq!(told[0]["type"], "balance.exhausted");
    assert_eq!(told[0]["data"]["balance"], "0.0000001");
    assert_eq!(told[0]["data"]["held"], "0.00000006");

    // A generation that can't go on, as its hold can't be extended.
    let later = at(MIDNIGHT + DAY);
    let cut = fixture.accounts.extend(&mut held, nanos(50), later).await;
    assert!(
        matches!(cut, Err(HoldError::BalanceTooLow { .. })),
        "{cut:?}"
    );
    fixture.written().await;
    assert_eq!(kinds(&fixture).await, ["balance.exhausted"]);
    let settlement = success(tokens(1, 0));
    fixture.accounts.settle(held, settlement).await.unwrap();
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_delivery_is_claimed_by_one() {
    let fixture = subscribed(0).await;
    let account = &fixture.caller.account;
    for key in ["first top-up", "second"] {
        let paid = fixture.accounts.credit(account, nanos(5), key, "", at(1));
        paid.await.unwrap();
    }
    let other = open(fixture.folder.path(), Role::Tool).await;
    let (a, b) = tokio::join!(
        fixture.accounts.claim_delivery("hook", at(1), at(31)),
        other.claim_delivery("hook", at(1), at(31)),
    );
    let mut claimed: Vec<_> = [a.unwrap(), b.unwrap()].into_iter().flatten().collect();
    while let Some(next) = other.claim_delivery("hook", at(1), at(31)).await.unwrap() {
        claimed.push(next);
    }
    assert_eq!(claimed.len(), 2, "each once: {claimed:?}");
    assert_ne!(claimed[0].event, claimed[1].event);
    assert!(claimed.iter().all(|delivery| delivery.attempts == 1));
    let none = other.claim_delivery("hook", at(30), at(60)).await.unwrap();
    assert_eq!(none, None, "both are claimed");

    // The process with the first claim is gone; the one with the second puts its delivery off.
    claimed.sort_by(|a, b| a.body.cmp(&b.body));
    let (stale, second) = (claimed.remove(0), claimed.remove(0));
    other.put_off_delivery(second, at(100)).await.unwrap();
    let again = other.claim_delivery("hook", at(31), at(61)).await.unwrap();
    let again = again.unwrap();
    assert_eq!((again.attempts, &again.event), (2, &stale.event));
    let none = other.claim_delivery("hook", at(31), at(61)).await.unwrap();
    assert_eq!(none, None, "the second waits");

    // The first process wasn't gone after all, but has lost its claim.
    fixture.accounts.end_delivery(stale).await.unwrap();
    let third = other.claim_delivery("hook", at(61), at(91)).await.unwrap();
    let third = third.unwrap();
    assert_eq!((third.attempts, &third.event), (3, &again.event));
    other.put_off_delivery(again, at(62)).await.unwrap();
    let none = other.claim_delivery("hook", at(62), at(92)).await.unwrap();
    assert_eq!(none, None, "nor does an older claim end a newer one");
    other.end_delivery(third).await.unwrap();
    let second = other.claim_delivery("hook", at(100), at(130)).await;
    assert_eq!(second.unwrap().unwrap().attempts, 2);
    let none = other.claim_delivery("hook", at(LATE), at(LATE)).await;
    assert_eq!(none.unwrap().unwrap().attempts, 3, "the first is ended");
}

#[tokio::test]
async fn what_is_to_be_told_outlives_the_process() {
    let fixture = subscribed(0).await;
    let account = fixture.caller.account.clone();
    for key in ["k1", "k2"] {
        let paid = fixture.accounts.credit(&account, nanos(5), key, "", at(1));
        paid.await.unwrap();
    }
    let claimed = fixture.accounts.claim_delivery("hook", at(2), at(32)).await;
    let claimed = claimed.unwrap().unwrap();
    fixture.accounts.close().await;
    let accounts = open(fixture.folder.path(), Role::Server).await;
    // The command line writes events for the server's webhooks.
    let options = options(fixture.folder.path(), Role::Tool).await;
    let tool = Accounts::open(options, at(3)).await.unwrap();
    tool.credit(&account, nanos(5), "k3", "", at(3))
        .await
        .unwrap();
    let same = vec![to("hook", &EventKind::ALL), to("new", &EventKind::ALL)];
    accounts.subscribe(same).await.unwrap();
    let told = told(&accounts, "hook").await;
    assert_eq!(told.len(), 3);
    let first: Value = serde_json::from_str(&claimed.body).unwrap();
    assert_eq!(told[0], first, "in order");
}

#[tokio::test]
async fn what_is_too_old_is_given_up() {
    let fixture = subscribed(0).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let both = vec![to("hook", &EventKind::ALL), to("other", &EventKind::ALL)];
    accounts.subscribe(both).await.unwrap();
    for second in [1, 2, 3] {
        let key = second.to_string();
        let paid = accounts.credit(account, nanos(5), &key, "", at(second));
        paid.await.unwrap();
    }
    let claimed = accounts.claim_delivery("hook", at(3), at(33)).await;
    let claimed = claimed.unwrap().unwrap();
    let given_up = accounts.give_up_deliveries("hook", at(2)).await.unwrap();
    assert_eq!(given_up, 2, "a claim keeps nothing alive");
    accounts.put_off_delivery(claimed, at(3)).await.unwrap();
    let left = told(accounts, "hook").await;
    assert_eq!(left.len(), 1, "the newest: {left:?}");
    assert_eq!(left[0]["timestamp"], at(3).to_string());
    assert_eq!(told(accounts, "other").await.len(), 3);
}

#[tokio::test]
async fn nothing_is_kept_for_a_webhook_that_is_gone() {
    let fixture = subscribed(0).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let pay = async |key: &str| {
        let paid = accounts.credit(account, nanos(5), key, "", at(1)).await;
        paid.unwrap();
    };
    pay("k1").await;
    accounts.subscribe(Vec::new()).await.unwrap();
    pay("k2").await;
    let all = vec![to("hook", &[EventKind::KeyCreated, EventKind::CreditAdded])];
    accounts.subscribe(all).await.unwrap();
    pay("k3").await;
    let fewer = vec![to("hook", &[EventKind::KeyCreated])];
    accounts.subscribe(fewer).await.unwrap();
    pay("k4").await;
    let told = told(accounts, "hook").await;
    assert_eq!(told.len(), 1, "only k3: {told:?}");
}

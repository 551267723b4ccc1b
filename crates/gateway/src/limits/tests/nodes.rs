//! Several nodes with one store, and their behaviour without it.

use std::mem::ManuallyDrop;
use std::time::Duration;

use futures::FutureExt;

use super::*;

/// A node that counts by the store's clock, as in production.
async fn node(url: &str, how: impl FnOnce(&mut StoreOptions)) -> Limits {
    let mut options = options(url.to_owned());
    how(&mut options);
    Limits::shared(options, Instant::now()).await.unwrap()
}

async fn nodes(valkey: &Valkey) -> [Limits; 3] {
    let url = valkey.url();
    let node = || node(&url, |_| ());
    [node().await, node().await, node().await]
}

fn now() -> Instant {
    Instant::now()
}

/// Sends a command to the store directly.
async fn ask<T: redis::FromRedisValue>(valkey: &Valkey, words: &[&str]) -> T {
    let client = redis::Client::open(valkey.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd(words[0])
        .arg(&words[1..])
        .query_async(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_sum_over_all_nodes_is_within_the_limit() {
    let valkey = Valkey::start();
    let nodes = nodes(&valkey).await;
    let key = [
        subject("{a}k", requests(40)),
        subject("{a}m", concurrent(25)),
    ];
    let at_once = (0..150).map(|i| {
        let (limits, key) = (nodes[i % 3].clone(), key.to_vec());
        async move { limits.admit_request(key, now()).await }
    });
    let mut open: Vec<_> = futures::future::join_all(at_once).await;
    open.retain(Result::is_ok);
    assert_eq!(open.len(), 25, "places over all nodes");
    for permit in open.drain(..) {
        permit.unwrap().end(0, now()).await;
    }
    let mut more = 0;
    while admit(&nodes[more % 3], &key, now()).await.is_ok() {
        more += 1;
    }
    // A unit of the limit comes back every 1.5 s, and the machine may be slow.
    assert!(
        (15..=20).contains(&more),
        "40 requests a minute, 25 were made: {more}"
    );
}

#[tokio::test]
async fn tokens_are_reserved_over_all_nodes() {
    let valkey = Valkey::start();
    let nodes = nodes(&valkey).await;
    let key = [subject("{a}k", tokens(1000))];
    let mut permits = Vec::new();
    for i in 0..30 {
        permits.push(admit(&nodes[i % 3], &key, now()).await.unwrap());
    }
    let at_once = permits
        .iter_mut()
        .map(|permit| permit.admit_tokens(100, now()));
    let reserved = futures::future::join_all(at_once).await;
    let admitted = reserved.iter().filter(|reserved| reserved.is_ok()).count();
    assert!((10..=11).contains(&admitted), "{admitted}");
    for permit in permits.drain(..) {
        permit.end(0, now()).await;
    }
    let mut next = admit(&nodes[0], &key, now()).await.unwrap();
    // The time while a reservation lasts counts as given back for each of them, although it passed only once.
    reserve(&mut next, 900, now()).await.unwrap();
}

#[tokio::test]
async fn a_dead_node_gives_its_places_back() {
    let valkey = Valkey::start();
    let origin = now();
    let node = || async {
        let opened = Store::open_with(
            options(valkey.url()),
            Time::Given(origin),
            Duration::from_secs(30),
        );
        Limits {
            store: Some(opened.await.unwrap()),
            ..Limits::new(origin)
        }
    };
    let (dies, lives) = (node().await, node().await);
    let key = [subject("k", concurrent(1))];
    let _never_ends = ManuallyDrop::new(admit(&dies, &key, origin).await.unwrap());
    let at = |seconds| origin + Duration::from_secs(seconds);
    assert!(admit(&lives, &key, at(29)).await.is_err());
    assert!(admit(&lives, &key, at(31)).await.is_ok());
}

#[tokio::test]
async fn a_running_request_keeps_its_place() {
    let valkey = Valkey::start();
    let lease = Duration::from_secs(3);
    let node = || async {
        let opened = Store::open_with(options(valkey.url()), Time::OfTheStore, lease);
        Limits {
            store: Some(opened.await.unwrap()),
            ..Limits::new(now())
        }
    };
    let (one, other) = (node().await, node().await);
    let key = [subject("k", concurrent(1))];
    let permit = admit(&one, &key, now()).await.unwrap();
    let end = now() + lease * 3 / 2;
    while now() < end {
        assert!(admit(&other, &key, now()).await.is_err());
    }
    permit.end(0, now()).await;
    assert!(admit(&other, &key, now()).await.is_ok());
}

#[tokio::test]
async fn who_hangs_up_while_the_store_decides_leaves_no_place_taken() {
    let valkey = Valkey::start();
    let limits = node(&valkey.url(), |_| ()).await;
    let key = [subject("k", concurrent(1))];
    let mut admitting = Box::pin(limits.admit_request(key.to_vec(), now()));
    assert!(
        admitting.as_mut().now_or_never().is_none(),
        "it is on its way"
    );
    drop(admitting);
    // Ends are sent in order: once this one has been delivered, the one before has been as well.
    let marker = [subject("marker", concurrent(1))];
    admit(&limits, &marker, now())
        .await
        .unwrap()
        .end(0, now())
        .await;
    assert!(admit(&limits, &key, now()).await.is_ok());
}

#[tokio::test]
async fn a_store_that_forgot_the_script_is_told_again() {
    let valkey = Valkey::start();
    let limits = node(&valkey.url(), |_| ()).await;
    let key = [subject("k", concurrent(1))];
    let permit = admit(&limits, &key, now()).await.unwrap();
    let _: String = ask(&valkey, &["SCRIPT", "FLUSH"]).await;
    permit.end(0, now()).await;
    let permit = admit(&limits, &key, now()).await.unwrap();
    let _: String = ask(&valkey, &["SCRIPT", "FLUSH"]).await;
    assert!(admit(&limits, &key, now()).await.is_err());
    permit.end(0, now()).await;
}

#[tokio::test]
async fn everything_at_the_store_expires() {
    let valkey = Valkey::start();
    let limits = node(&valkey.url(), |_| ()).await;
    let quotas = Quotas {
        requests_per_minute: Some(10),
        tokens_per_minute: Some(10),
        concurrent_requests: Some(10),
    };
    let mut permit = admit(&limits, &[subject("k", quotas)], now())
        .await
        .unwrap();
    reserve(&mut permit, 5, now()).await.unwrap();
    let keys: Vec<String> = ask(&valkey, &["KEYS", "*"]).await;
    assert_eq!(
        keys.len(),
        4,
        "two of the subject, two of the probe: {keys:?}"
    );
    for key in keys {
        let left_ms: i64 = ask(&valkey, &["PTTL", &key]).await;
        assert!((1..=150_000).contains(&left_ms), "{key}: {left_ms}");
    }
}

/// Each policy's behaviour while the store is dead, from the first request on.
#[tokio::test]
async fn without_the_store_the_policy_decides() {
    let mut valkey = Valkey::start();
    let url = valkey.url();
    let with = |policy| node(&url, move |options| options.on_failure = policy);
    let (local, open, closed) = (
        with(StoreFailure::Local).await,
        with(StoreFailure::Open).await,
        with(StoreFailure::Closed).await,
    );
    let key = [subject("k", requests(3))];
    assert!(admit(&local, &key, now()).await.is_ok());
    valkey.kill();
    let (admitted, denied) = burst(&local, &key, now()).await;
    assert_eq!(
        (admitted, denied.which),
        (2, Which::Requests),
        "it goes on from what the store had counted"
    );
    for _ in 0..10 {
        assert!(admit(&open, &key, now()).await.is_ok());
        let refused = closed.admit_request(key.to_vec(), now()).await;
        assert_eq!(refused.unwrap_err(), NotAdmitted::Unavailable);
    }

    valkey.restart();
    for limits in [&local, &open, &closed] {
        limits.store.as_ref().unwrap().up(true).await;
    }
    assert_eq!(burst(&local, &key, now()).await.0, 3, "the store is empty");
    assert!(admit(&open, &key, now()).await.is_err());
    assert!(admit(&closed, &key, now()).await.is_err());
}

/// A store that hangs costs one timeout, not one for each request, and is used again once it answers.
#[tokio::test]
async fn a_hanging_store_holds_nobody_up() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let valkey = Valkey::start();
    let limits = node(&valkey.url(), |options| {
        options.timeout = TIMEOUT;
        options.on_failure = StoreFailure::Local;
    })
    .await;
    let key = [subject("k", concurrent(1))];
    let before = admit(&limits, &key, now()).await.unwrap();
    valkey.signal("-STOP");
    let started = now();
    assert!(
        admit(&limits, &key, now()).await.is_err(),
        "also locally it has its place"
    );
    assert!(started.elapsed() >= TIMEOUT);
    let store = limits.store.as_ref().unwrap();
    store.up(false).await;
    // While the store is unreachable no call waits: every future is ready at its first poll.
    for _ in 0..1000 {
        let refused = limits.admit_request(key.to_vec(), now()).now_or_never();
        assert!(refused.unwrap().is_err());
    }
    before.end(0, now()).now_or_never().unwrap();
    let during = admit(&limits, &key, now()).await.unwrap();

    valkey.signal("-CONT");
    store.up(true).await;
    during.end(0, now()).await;
    limits.close().await;
}

#[tokio::test]
async fn a_store_may_come_later_than_the_node() {
    let mut valkey = Valkey::start();
    valkey.kill();
    let limits = node(&valkey.url(), |options| {
        options.on_failure = StoreFailure::Local;
    })
    .await;
    let key = [subject("k", requests(2))];
    assert_eq!(burst(&limits, &key, now()).await.0, 2);
    valkey.restart();
    limits.store.as_ref().unwrap().up(true).await;
    assert_eq!(
        burst(&limits, &key, now()).await.0,
        2,
        "counted by the store now"
    );
    let other = node(&valkey.url(), |_| ()).await;
    assert_eq!(burst(&other, &key, now()).await.0, 0);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_repeating_it() {
    for url in ["", "h:6379", "http://h", "redis://u:secret@/x/y z"] {
        let options = options(url.to_owned());
        assert!(!format!("{options:?}").contains("secret"));
        let error = Limits::shared(options, now()).await.map(drop);
        assert_eq!(error, Err(StoreError::Address), "{url}");
    }
}

//! Events reach a receiver that fails, hangs and redirects, even if the delivering process crashes or is stopped.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "delivery/receiver.rs"]
mod receiver;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_accounts::{AccountId, Accounts, EventKind, Nanos, Options, Role};
use weir_webhooks::{Addresses, Deps, Webhook, Webhooks};

use crate::receiver::{Answer, Received, Receiver};

const KEY: [u8; 32] = [7; 32];
const START: i64 = 1_700_000_000;
const HOUR: i64 = 3600;

/// A database, a clock that stands still, and a task that delivers.
struct Fixture {
    folder: TempDir,
    accounts: Accounts,
    account: AccountId,
    clock: Arc<AtomicI64>,
    webhooks: Vec<Webhook>,
    /// The task that delivers; earlier ones have ended.
    running: JoinSet<()>,
    started: Option<Arc<Webhooks>>,
    stop: CancellationToken,
}

fn webhook(name: &str, url: &str) -> Webhook {
    Webhook {
        name: name.to_owned(),
        target: url.parse().unwrap(),
        key: format!("whsec_{}", STANDARD.encode(KEY)).parse().unwrap(),
        kinds: vec![EventKind::CreditAdded],
        allow_private: true,
        timeout: Duration::from_secs(20),
        give_up_after: Duration::from_secs(1_000_000_000),
    }
}

fn half() -> u64 {
    u64::MAX / 2
}

async fn open(folder: &TempDir) -> Accounts {
    let options = Options::new(folder.path().join("weir.db"), Role::Server);
    Accounts::open(options, Timestamp::from_second(START).unwrap())
        .await
        .unwrap()
}

impl Fixture {
    async fn with(webhooks: Vec<Webhook>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = open(&folder).await;
        let now = Timestamp::from_second(START).unwrap();
        let account = accounts.add_account("demo", now).await.unwrap().id;
        let mut fixture = Fixture {
            folder,
            accounts,
            account,
            clock: Arc::new(AtomicI64::new(START)),
            webhooks,
            running: JoinSet::new(),
            started: None,
            stop: CancellationToken::new(),
        };
        let deps = fixture.deps();
        fixture.start(deps).await;
        fixture
    }

    fn deps(&self) -> Deps {
        let clock = Arc::clone(&self.clock);
        let now = move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap();
        Deps {
            poll_every: Duration::from_millis(2),
            ..Deps::new(now, half)
        }
    }

    async fn start(&mut self, deps: Deps) {
        let webhooks = self.webhooks.clone();
        let started = Webhooks::start(self.accounts.clone(), webhooks, deps).await;
        let (started, stop) = (Arc::new(started.unwrap()), self.stop.clone());
        self.started = Some(Arc::clone(&started));
        self.running.spawn(async move { started.run(stop).await });
    }

    /// Restarts as after kill -9: running attempts are dropped without writing anything.
    async fn start_after_a_crash(&mut self) {
        self.running.shutdown().await;
        self.accounts.close().await;
        self.accounts = open(&self.folder).await;
        self.start(self.deps()).await;
    }

    async fn start_after_a_stop(&mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap();
        self.stop = CancellationToken::new();
        self.start(self.deps()).await;
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Tops up the account, which is an event.
    async fn pay(&self, nanos: i64) {
        let now = self.clock.load(Ordering::Relaxed);
        let (key, at) = (format!("k{nanos}"), Timestamp::from_second(now).unwrap());
        let paid = self
            .accounts
            .credit(&self.account, Nanos::new(nanos), &key, "", at);
        paid.await.unwrap();
    }
}

/// Checks that a receiver would accept the request. Returns the event's id and the amount that was paid in.
#[track_caller]
fn read(received: &Received) -> (String, String) {
    let header = |name: &str| received.headers[name].clone();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
    mac.update(format!("{id}.{timestamp}.{}", received.body).as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(header("webhook-signature"), format!("v1,{signature}"));
    assert_eq!(header("content-type"), "application/json");
    assert!(header("user-agent").starts_with("weir/"));
    let body: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body["type"], "credit.added");
    (id, body["data"]["amount"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn it_is_tried_until_it_is_taken() {
    let elsewhere = Receiver::start(vec![]).await;
    let answers = vec![
        Answer::Status(500),
        Answer::Status(404),
        Answer::Hang,
        Answer::Close,
        Answer::Redirect(elsewhere.url("/stolen")),
        Answer::Garbage,
        Answer::Status(204),
    ];
    let attempts = answers.len();
    let mut receiver = Receiver::start(answers).await;
    let webhook = Webhook {
        timeout: Duration::from_millis(100),
        ..webhook("hook", &receiver.url("/in?token=t"))
    };
    let mut fixture = Fixture::with(vec![]).await;
    fixture.webhooks = vec![webhook];
    // Each look at the clock lets an hour pass, so that everything is due again at once.
    let (mut deps, clock) = (fixture.deps(), Arc::clone(&fixture.clock));
    deps.now = Arc::new(move || {
        let now = clock.fetch_add(HOUR, Ordering::Relaxed);
        Timestamp::from_second(now).unwrap()
    });
    fixture.start(deps).await;
    fixture.pay(5).await;
    let mut ids = Vec::new();
    for attempt in 1..=attempts {
        let received = receiver.next().await;
        assert_eq!(received.line, "POST /in?token=t HTTP/1.1", "{attempt}");
        assert_eq!(received.headers["host"], receiver.authority());
        ids.push(read(&received).0);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one id for all attempts: {ids:?}");

    // The next event has another id, and the first isn't sent again.
    fixture.pay(6).await;
    let (id, amount) = read(&receiver.next().await);
    assert_eq!(amount, "0.000000006");
    assert_ne!(id, ids[0]);
    assert_eq!(elsewhere.connections(), 0, "redirects are not followed");
}

#[tokio::test]
async fn the_oldest_first_and_a_failed_one_steps_aside() {
    let answers = vec![Answer::Status(200), Answer::Status(503)];
    let mut receiver = Receiver::start(answers).await;
    let fixture = Fixture::with(vec![webhook("hook", &receiver.url("/"))]).await;
    let mut amounts = Vec::new();
    for nanos in [1, 2, 3] {
        fixture.pay(nanos).await;
    }
    for _ in 0..3 {
        amounts.push(read(&receiver.next().await).1);
    }
    fixture.pass(HOUR);
    amounts.push(read(&receiver.next().await).1);
    let expected = ["0.000000001", "0.000000002", "0.000000003", "0.000000002"];
    assert_eq!(amounts, expected);
}

#[tokio::test]
async fn a_crash_loses_nothing() {
    let answers = vec![Answer::Hang, Answer::Hang, Answer::Status(200)];
    let mut receiver = Receiver::start(answers).await;
    let mut fixture = Fixture::with(vec![webhook("hook", &receiver.url("/"))]).await;
    fixture.pay(1).await;
    let first = read(&receiver.next().await);
    // The claim of the crashed process isn't over yet for the next one.
    fixture.start_after_a_crash().await;
    fixture.pay(2).await;
    let second = read(&receiver.next().await);
    assert_eq!(second.1, "0.000000002");
    // A process that is told to stop gives its delivery back.
    fixture.start_after_a_stop().await;
    assert_eq!(read(&receiver.next().await), second, "at once");
    fixture.pass(HOUR);
    assert_eq!(
        read(&receiver.next().await),
        first,
        "when its claim is over"
    );
}

#[tokio::test]
async fn it_is_given_up_after_a_while() {
    let [failed, taken] = [Answer::Status(500), Answer::Status(200)];
    let answers = vec![failed.clone(), taken.clone(), failed.clone(), taken, failed];
    let mut receiver = Receiver::start(answers).await;
    let webhook = Webhook {
        give_up_after: Duration::from_secs(3600),
        ..webhook("hook", &receiver.url("/"))
    };
    let fixture = Fixture::with(vec![webhook]).await;
    fixture.pay(1).await;
    let first = read(&receiver.next().await);
    // Once the second event is received, the outcome of the first attempt is written.
    fixture.pay(2).await;
    assert_eq!(read(&receiver.next().await).1, "0.000000002");
    fixture.pass(HOUR / 2);
    assert_eq!(read(&receiver.next().await), first);
    fixture.pay(3).await;
    assert_eq!(read(&receiver.next().await).1, "0.000000003");
    fixture.pass(HOUR / 2 - 1);
    assert_eq!(read(&receiver.next().await), first, "for the last time");
    fixture.pass(HOUR);
    for (nanos, amount) in [(4, "0.000000004"), (5, "0.000000005")] {
        fixture.pay(nanos).await;
        assert_eq!(read(&receiver.next().await).1, amount);
        fixture.pass(HOUR);
    }
}

#[tokio::test]
async fn those_behind_one_that_fails_are_given_up_too() {
    let mut receiver = Receiver::start(vec![]).await;
    let webhook = Webhook {
        give_up_after: Duration::from_secs(3600),
        ..webhook("hook", &format!("http://hook.example:{}/", receiver.port()))
    };
    let mut fixture = Fixture::with(vec![]).await;
    fixture.webhooks = vec![webhook];
    let (asked, mut names) = mpsc::channel(100);
    let (answer, answers) = mpsc::channel::<Addresses>(1);
    let answers = Arc::new(tokio::sync::Mutex::new(answers));
    let mut deps = fixture.deps();
    deps.resolve = Arc::new(move |name| {
        let (asked, answers) = (asked.clone(), Arc::clone(&answers));
        Box::pin(async move {
            asked.send(name).await.unwrap();
            answers.lock().await.recv().await.unwrap()
        })
    });
    fixture.start(deps).await;
    for nanos in [1, 2, 3] {
        fixture.pay(nanos).await;
    }
    names.recv().await.unwrap();
    fixture.pass(HOUR);
    answer
        .send(Err(std::io::ErrorKind::NotFound.into()))
        .await
        .unwrap();
    fixture.pay(4).await;
    let home = IpAddr::from([127, 0, 0, 1]);
    answer.send(Ok(vec![home])).await.unwrap();
    assert_eq!(read(&receiver.next().await).1, "0.000000004");
}

#[tokio::test]
async fn one_that_hangs_does_not_hold_up_another() {
    let mut slow = Receiver::start(vec![Answer::Hang]).await;
    let mut fast = Receiver::start(vec![]).await;
    let webhooks = vec![
        webhook("slow", &slow.url("/")),
        webhook("fast", &fast.url("/")),
    ];
    let fixture = Fixture::with(webhooks).await;
    fixture.pay(1).await;
    read(&slow.next().await);
    for nanos in [2, 3] {
        fixture.pay(nanos).await;
    }
    for amount in ["0.000000001", "0.000000002", "0.000000003"] {
        assert_eq!(read(&fast.next().await).1, amount);
    }
    assert_eq!(slow.connections(), 1, "one at a time");
}

/// Webhooks that replace others get what comes later, and what those of the same name hadn't delivered.
#[tokio::test]
async fn webhooks_are_replaced() {
    let mut old = Receiver::start(vec![Answer::Hang]).await;
    let mut new = Receiver::start(vec![]).await;
    let mut fixture = Fixture::with(vec![]).await;
    let started = Arc::clone(fixture.started.as_ref().unwrap());
    started
        .replace(vec![webhook("hook", &old.url("/"))])
        .await
        .unwrap();
    fixture.pay(1).await;
    let (id, amount) = read(&old.next().await);
    assert_eq!(amount, "0.000000001");
    let replaced = started.replace(vec![webhook("hook", &new.url("/"))]);
    replaced.await.unwrap();
    assert_eq!(read(&new.next().await), (id, amount));
    fixture.pay(2).await;
    assert_eq!(read(&new.next().await).1, "0.000000002");
    assert_eq!(old.connections(), 1);
    started.replace(vec![]).await.unwrap();
    fixture.pay(3).await;
    fixture.stop.cancel();
    fixture.running.join_next().await.unwrap().unwrap();
    assert_eq!(new.connections(), 2, "no webhook, no delivery");
}

/// Checks whether a name with these addresses is reached.
async fn check(allow_private: bool, addresses: &[&str], reached: bool) {
    let mut receiver = Receiver::start(vec![]).await;
    let url = format!("http://hook.example:{}/", receiver.port());
    let webhook = Webhook {
        allow_private,
        ..webhook("hook", &url)
    };
    let mut fixture = Fixture::with(vec![]).await;
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let (asked, mut names) = mpsc::channel(100);
    let mut deps = fixture.deps();
    deps.resolve = Arc::new(move |name| {
        let (asked, addresses) = (asked.clone(), addresses.clone());
        Box::pin(async move {
            asked.send(name).await.unwrap();
            Ok(addresses)
        })
    });
    fixture.webhooks = vec![webhook];
    fixture.start(deps).await;
    fixture.pay(1).await;
    assert_eq!(names.recv().await.unwrap(), "hook.example");
    if reached {
        let received = receiver.next().await;
        read(&received);
        let host = format!("hook.example:{}", receiver.port());
        assert_eq!(received.headers["host"], host);
        return;
    }
    // The second event is tried only when the first one's attempt is over.
    fixture.pay(2).await;
    names.recv().await.unwrap();
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn only_who_is_meant_is_reached() {
    check(true, &["127.0.0.1"], true).await;
    check(false, &["127.0.0.1"], false).await;
    check(false, &["1.1.1.1", "127.0.0.1"], false).await;
    check(false, &["127.0.0.1", "1.1.1.1"], false).await;
    check(false, &["::ffff:127.0.0.1"], false).await;
}

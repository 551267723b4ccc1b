//! Invariants of the ledger when many requests come at once, when prices change, and when the clock is wrong.
#![expect(clippy::unwrap_used, reason = "a test fails where it can't go on")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use weir_accounts::{
    AccountChange, AccountId, Accounts, Caller, Counts, EventKind, Nanos, Options, Outcome, Price,
    Role, Subscription,
};
use weir_engine::request::{Input, OutputLimit, Overflow, Prompt};
use weir_engine::{Event, Request, Sampling, Usage};
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Delivery, Gateway, Generation, Job, Offer, Refusal};
use weir_inference::local::LocalEngine;
use weir_inference::sim::{self, SimModel, SimOptions};

const MODEL: &str = "test/model";
/// Number of concurrent requests.
const MANY: usize = 1_000;
const PROMPT_TOKENS: usize = 5;

/// A clock that is off by a settable number of hours.
#[derive(Clone, Default)]
struct Wrong(Arc<AtomicI64>);

impl Wrong {
    fn set(&self, hours: i64) {
        self.0.store(hours, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        let hours = SignedDuration::from_hours(self.0.load(Ordering::Relaxed));
        Timestamp::from_second(1_700_000_000).unwrap() + hours
    }

    fn clock(&self) -> Clock {
        let wrong = self.clone();
        Clock::from_fn(move || wrong.now())
    }
}

/// Accounts with one account, credited with `credit` nano-USD, and its caller.
async fn accounts(folder: &Path, credit: i64) -> (Accounts, Caller) {
    let now = Wrong::default().now();
    let options = Options::new(folder.join("weir.db"), Role::Server);
    let accounts = Accounts::open(options, now).await.unwrap();
    let account = accounts.add_account("alice", now).await.unwrap();
    let credit = Nanos::new(credit);
    accounts
        .credit(&account.id, credit, "first", "", now)
        .await
        .unwrap();
    let key = accounts.add_key(&account.id, None, now).await.unwrap();
    let caller = accounts.authenticate(key.secret.expose(), now).await;
    (accounts, caller.unwrap())
}

/// A gateway with a model that never ends its text, at this price.
fn gateway(accounts: &Accounts, price: Price, quotas: Quotas, clock: Clock) -> Gateway {
    let model = SimModel::new(SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    });
    let mut options = sim::options();
    options.queue_requests_max = MANY;
    let offer = Offer {
        id: MODEL.to_owned(),
        created: 0,
        title: MODEL.to_owned(),
        description: String::new(),
        price,
        max_output_tokens: None,
        engines: vec![Arc::new(LocalEngine::spawn(model, options).unwrap())],
    };
    Gateway::new(Catalog::new(vec![offer]), accounts.clone(), quotas, clock)
}

/// A request for `tokens` output tokens, or without a limit, for as many as fit the context.
fn job(id: &str, tokens: Option<u32>) -> Job {
    let prompt = Prompt::Tokens(vec![260; PROMPT_TOKENS]);
    let output = OutputLimit {
        tokens,
        overflow: Overflow::Lower,
    };
    let sampling = Sampling::default().or_seed(1);
    Job {
        request_id: id.to_owned(),
        model: MODEL.to_owned(),
        request: Request {
            sampling,
            output,
            ..Request::new(Input::Prompts(vec![prompt]))
        },
        delivery: Delivery::Stream,
    }
}

async fn finish(mut generation: Generation) -> Usage {
    while let Some(event) = generation.next().await {
        if let Event::Done(usage) = event.unwrap() {
            return usage;
        }
    }
    panic!("it didn't finish");
}

async fn assert_books(accounts: &Accounts) {
    assert_eq!(accounts.verify().await.unwrap(), Vec::<String>::new());
}

/// The sum of the usage records' costs, in nano-USD, by the prices that the records name.
async fn invoice(accounts: &Accounts, account: &AccountId) -> i64 {
    let records = accounts.usage(account, u32::MAX).await.unwrap();
    let cost = |price: Price, counts: Counts| price.cost(&counts).unwrap().get();
    records
        .iter()
        .map(|record| cost(record.price, record.counts))
        .sum()
}

/// 5 tokens at 10 nano-USD and 7 at 20: a hold, and a charge, of 190.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_and_money_for_137() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, caller) = accounts(folder.path(), 190 * 137 + 189).await;
    let price = Price {
        input: 100,
        output: 200,
        cached: None,
    };
    let gateway = gateway(
        &accounts,
        price,
        Quotas::default(),
        Wrong::default().clock(),
    );
    let requests = (0..MANY).map(async |n| {
        match gateway.start(&caller, job(&format!("r{n}"), Some(7))).await {
            Ok(generation) => finish(generation).await.completion,
            Err(Refusal::BalanceTooLow { .. } | Refusal::BalanceInFlight { .. }) => 0,
            Err(other) => panic!("{other:?}"),
        }
    });
    let served = join_all(requests)
        .await
        .into_iter()
        .filter(|tokens| *tokens == 7)
        .count();
    assert!((136..=137).contains(&served), "{served}");
    let left = accounts.account("alice").await.unwrap();
    let charged = 190 * i64::try_from(served).unwrap();
    assert_eq!(
        (left.posted.get(), left.held),
        (190 * 137 + 189 - charged, Nanos::ZERO)
    );
    assert_books(&accounts).await;
}

/// The catalogue changes while requests run: each request pays the price at which it was admitted.
#[tokio::test]
async fn a_price_that_changes_is_for_those_who_come_later() {
    const CREDIT: i64 = 1_000_000_000;
    let folder = tempfile::tempdir().unwrap();
    let (accounts, caller) = accounts(folder.path(), CREDIT).await;
    let clock = Wrong::default().clock();
    // At these prices no single token costs a whole number of nano-USD.
    let price = |input, output| Price {
        input,
        output,
        cached: Some(3),
    };
    let before = gateway(&accounts, price(7, 13), Quotas::default(), clock.clone());
    // The first request's hold is extended after the price has changed.
    let early = [
        before.start(&caller, job("rolls", None)).await.unwrap(),
        before.start(&caller, job("fixed", Some(3))).await.unwrap(),
    ];
    let after = gateway(&accounts, price(70_001, 130_003), Quotas::default(), clock);
    let late = after.start(&caller, job("late", Some(3))).await.unwrap();
    let mut usages = join_all(early.map(finish)).await;
    usages.push(finish(late).await);
    assert!(usages[0].completion > 2_000, "{usages:?}");

    let account = accounts.account("alice").await.unwrap();
    let records = accounts.usage(&account.id, 10).await.unwrap();
    let cost = |id: &str| {
        let record = records.iter().find(|record| record.request == id).unwrap();
        assert_eq!(record.outcome, Outcome::Success);
        record.cost.get()
    };
    let due = |usage: &Usage, input: u64, output: u64| {
        i64::try_from((usage.prompt * input + usage.completion * output).div_ceil(10)).unwrap()
    };
    assert_eq!(cost("rolls"), due(&usages[0], 7, 13));
    assert_eq!(cost("fixed"), due(&usages[1], 7, 13));
    assert_eq!(cost("late"), due(&usages[2], 70_001, 130_003));
    let charged = CREDIT - account.posted.get();
    assert_eq!(charged, invoice(&accounts, &account.id).await);
    assert_books(&accounts).await;
}

/// A caller that has used up its requests of the minute gets no more of them, and one that hasn't isn't locked out.
#[tokio::test]
async fn a_clock_that_jumps_gives_no_quota_and_takes_none() {
    const LIMIT: u32 = 4;
    for hours in [1, -1] {
        let folder = tempfile::tempdir().unwrap();
        let (accounts, caller) = accounts(folder.path(), 1_000_000).await;
        let quotas = Quotas {
            requests_per_minute: Some(LIMIT),
            ..Quotas::default()
        };
        let price = Price {
            input: 100,
            output: 200,
            cached: None,
        };
        let wrong = Wrong::default();
        let gateway = gateway(&accounts, price, quotas, wrong.clock());
        for n in 0..LIMIT {
            if n == LIMIT / 2 {
                wrong.set(hours);
            }
            let id = format!("r{n}");
            let started = gateway.start(&caller, job(&id, Some(2))).await;
            finish(started.unwrap_or_else(|refusal| panic!("{id}, {hours} h: {refusal}"))).await;
        }
        for hours in [hours, 0, -hours, hours] {
            wrong.set(hours);
            let refusal = gateway
                .start(&caller, job("more", Some(2)))
                .await
                .unwrap_err();
            assert!(
                matches!(refusal, Refusal::RequestLimit { .. }),
                "{hours} h: {refusal:?}"
            );
        }
        assert_books(&accounts).await;
    }
}

/// A clock that jumps ahead doesn't expire the hold of a running request, which is charged in full.
#[tokio::test]
async fn a_clock_that_jumps_expires_no_hold_that_lives() {
    for hours in [1, 2, -1] {
        let folder = tempfile::tempdir().unwrap();
        let (accounts, caller) = accounts(folder.path(), 1_000_000).await;
        let price = Price {
            input: 100,
            output: 200,
            cached: None,
        };
        let wrong = Wrong::default();
        let gateway = gateway(&accounts, price, Quotas::default(), wrong.clock());
        let running = gateway.start(&caller, job("running", None)).await.unwrap();
        wrong.set(hours);
        let ended = accounts.expire(wrong.now()).await.unwrap();
        assert_eq!((ended.settled, ended.released), (0, 0), "{hours} h");
        let usage = finish(running).await;
        let due = i64::try_from(usage.prompt * 10 + usage.completion * 20).unwrap();
        let left = accounts.account("alice").await.unwrap();
        assert_eq!(
            (left.posted.get(), left.held),
            (1_000_000 - due, Nanos::ZERO),
            "{hours} h"
        );
        let [record] = &accounts.usage(&left.id, 2).await.unwrap()[..] else {
            panic!("one record")
        };
        assert_eq!(record.outcome, Outcome::Success);
        assert_books(&accounts).await;
    }
}

/// The kinds of the events queued for the webhook, in order.
async fn told(accounts: &Accounts, now: Timestamp) -> Vec<String> {
    // Noted events are stored with the next transaction.
    accounts.expire(now).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(delivery) = accounts.claim_delivery("hook", now, now).await.unwrap() {
        kinds.push(delivery.kind.clone());
        accounts.end_delivery(delivery).await.unwrap();
    }
    kinds
}

/// Requests of 190 nano-USD each, until the balance is used up: the webhook hears of that once a day, however often
/// requests come.
#[tokio::test]
async fn who_runs_out_of_money_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, caller) = accounts(folder.path(), 190 * 2 + 189).await;
    let price = Price {
        input: 100,
        output: 200,
        cached: None,
    };
    let wrong = Wrong::default();
    let gateway = gateway(&accounts, price, Quotas::default(), wrong.clock());
    let hook = Subscription {
        webhook: "hook".to_owned(),
        kinds: EventKind::ALL.to_vec(),
    };
    accounts.subscribe(vec![hook]).await.unwrap();
    let low = AccountChange {
        low_balance: Some(Some(Nanos::new(200))),
        ..AccountChange::default()
    };
    let account = &caller.account;
    accounts
        .update_account(account, low, wrong.now())
        .await
        .unwrap();

    let expected: [&[&str]; 4] = [&[], &["balance.low"], &["balance.exhausted"], &[]];
    for (n, expected) in expected.into_iter().enumerate() {
        match gateway.start(&caller, job(&format!("r{n}"), Some(7))).await {
            Ok(generation) => assert_eq!(finish(generation).await.completion, 7),
            Err(refusal) => assert!(matches!(refusal, Refusal::BalanceTooLow { .. }) && n >= 2),
        }
        assert_eq!(told(&accounts, wrong.now()).await, expected, "request {n}");
    }
    // The next day, a request uses up the rest of the balance.
    wrong.set(24);
    let rest = gateway.start(&caller, job("rest", None)).await.unwrap();
    let usage = finish(rest).await;
    assert_eq!(usage.completion, (189 - 50) / 20);
    let kinds = told(&accounts, wrong.now()).await;
    assert_eq!(kinds, ["balance.exhausted", "balance.low"]);
    assert_books(&accounts).await;
}

/// Maintenance deletes usage records older than their retention.
#[tokio::test]
async fn usage_is_kept_as_long_as_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, caller) = accounts(folder.path(), 1_000_000).await;
    let price = Price {
        input: 10,
        output: 10,
        cached: None,
    };
    let wrong = Wrong::default();
    let gateway = gateway(&accounts, price, Quotas::default(), wrong.clock())
        .with_usage_kept(SignedDuration::from_hours(24));
    for (hours, id) in [(0, "old"), (2, "young")] {
        wrong.set(hours);
        finish(gateway.start(&caller, job(id, Some(3))).await.unwrap()).await;
    }
    wrong.set(25);
    let kept = async || {
        loop {
            let usage = accounts.usage(&caller.account, 10).await.unwrap();
            if usage.len() < 2 {
                break usage;
            }
            tokio::task::yield_now().await;
        }
    };
    let kept = tokio::select! {
        kept = kept() => kept,
        () = gateway.run_maintenance(CancellationToken::new()) => panic!("nobody stops it"),
    };
    let kept: Vec<_> = kept.iter().map(|record| &*record.request).collect();
    assert_eq!(kept, ["young"]);
    assert_books(&accounts).await;
}

//! Holds and how they end.

use weir_accounts::{Counts, HoldError, Nanos, Outcome, Price, Refund, Settlement, Source};

use crate::fixture::{Fixture, PRICE, at, lose, nanos, success, tokens};

#[tokio::test]
async fn a_hold_is_settled_at_its_cost() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 300).await.unwrap();
    assert_eq!(fixture.balance().await, (1_000, 300));
    let counts = Counts {
        prompt: 50,
        cached: 20,
        completion: 60,
        reasoning: 7,
    };
    let settlement = Settlement {
        counts,
        outcome: Outcome::Disconnected,
        source: Source::Upstream,
        now: at(9),
    };
    let charged = fixture.accounts.settle(hold, settlement).await.unwrap();
    assert_eq!(charged, nanos(30 + 10 + 120));
    assert_eq!(fixture.balance().await, (840, 0));

    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 10)
        .await
        .unwrap();
    let [record] = &usage[..] else {
        panic!("{usage:?}")
    };
    assert_eq!(
        (record.request.as_str(), record.attempt, &record.key),
        ("r1", 0, &fixture.caller.key)
    );
    assert_eq!(
        (record.model.as_str(), record.price, record.counts),
        ("org/model", PRICE, counts)
    );
    assert_eq!(
        (record.cost, record.outcome, record.source),
        (charged, Outcome::Disconnected, Source::Upstream)
    );
    assert_eq!((record.started_at, record.ended_at), (at(1), at(9)));
    fixture.assert_books().await;
}

#[tokio::test]
async fn what_the_balance_cannot_cover_is_refused() {
    let fixture = Fixture::with(1_000).await;
    let open = fixture.held("open", 400).await.unwrap();
    let check = async |amount: i64, expected: &str| {
        let refused = fixture
            .held(&format!("r{amount}"), amount)
            .await
            .map(|hold| hold.amount());
        assert_eq!(format!("{refused:?}"), expected, "{amount}");
    };
    check(600, "Ok(Nanos(600))").await;
    check(
        601,
        "Err(InFlight { available: Nanos(600), held: Nanos(400) })",
    )
    .await;
    check(
        1_000,
        "Err(InFlight { available: Nanos(600), held: Nanos(400) })",
    )
    .await;
    check(1_001, "Err(BalanceTooLow { available: Nanos(600) })").await;
    check(i64::MAX, "Err(BalanceTooLow { available: Nanos(600) })").await;
    check(0, "Ok(Nanos(0))").await;
    let negative = fixture.held("negative", -1).await;
    assert!(matches!(negative, Err(HoldError::Store(_))), "{negative:?}");
    // A refused hold leaves nothing behind: the same attempt may ask for less.
    check(
        601,
        "Err(InFlight { available: Nanos(600), held: Nanos(400) })",
    )
    .await;
    assert!(fixture.held("r601", 600).await.is_ok());
    drop(open);
    assert_eq!(fixture.balance().await, (1_000, 0));
    fixture.assert_books().await;
}

/// 1,000 holds at once, and money for 137: at most 137 are granted, and at least 136.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_holds_never_overdraw() {
    const PAID: usize = 137;
    let fixture = Fixture::with(100 * 137 + 99).await;
    let mut pending = Vec::new();
    for n in 0..1_000 {
        pending.push(
            fixture
                .accounts
                .hold(fixture.hold(&format!("r{n}"), 100))
                .unwrap(),
        );
    }
    let mut holds = Vec::new();
    for pending in pending {
        match pending.durable().await {
            Ok(hold) => holds.push(hold),
            Err(HoldError::InFlight { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!((PAID - 1..=PAID).contains(&holds.len()), "{}", holds.len());
    assert_eq!(
        fixture.balance().await,
        (13_799, i64::try_from(holds.len()).unwrap() * 100)
    );

    let settled = holds
        .into_iter()
        .map(|hold| fixture.accounts.settle(hold, success(tokens(100, 0))));
    let settled = futures::future::join_all(settled).await;
    let charged: i64 = settled
        .iter()
        .map(|cost| cost.as_ref().unwrap().get())
        .sum();
    assert!(charged <= 13_799);
    assert_eq!(fixture.balance().await, (13_799 - charged, 0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn the_same_attempt_is_held_and_settled_once() {
    let fixture = Fixture::with(1_000).await;
    let first = fixture.held("r1", 300).await.unwrap();
    // A replay gets the first result, whatever amount it asks for.
    let again = fixture.held("r1", 500).await.unwrap();
    assert_eq!(again.amount(), nanos(300));
    assert_eq!(fixture.balance().await, (1_000, 300));

    let charged = fixture
        .accounts
        .settle(first, success(tokens(10, 20)))
        .await;
    assert_eq!(charged.unwrap(), nanos(50));
    let charged = fixture
        .accounts
        .settle(again, success(tokens(99, 99)))
        .await;
    assert_eq!(charged.unwrap(), nanos(50));
    assert_eq!(fixture.balance().await, (950, 0));

    let late = fixture.held("r1", 300).await;
    assert!(matches!(late, Err(HoldError::Ended)), "{late:?}");
    let mut stolen = fixture.hold("r1", 300);
    stolen.price = Price {
        input: 0,
        output: 0,
        cached: None,
    };
    let stolen = fixture.accounts.hold(stolen).unwrap().durable().await;
    assert!(matches!(stolen, Err(HoldError::Store(_))), "{stolen:?}");
    assert_eq!(
        fixture
            .accounts
            .usage(&fixture.caller.account, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    fixture.assert_books().await;
}

#[tokio::test]
async fn each_attempt_is_charged_once_at_its_own_price() {
    let fixture = Fixture::with(1_000).await;
    let first = fixture.held("r1", 100).await.unwrap();
    let mut second = fixture.hold("r1", 100);
    second.attempt = 1;
    second.price = Price {
        input: 20,
        output: 20,
        cached: None,
    };
    let second = fixture
        .accounts
        .hold(second)
        .unwrap()
        .durable()
        .await
        .unwrap();
    // The price changed after `first` was admitted: `first` keeps its price.
    for (hold, cost) in [(first, 10), (second, 20)] {
        assert_eq!(
            fixture
                .accounts
                .settle(hold, success(tokens(10, 0)))
                .await
                .unwrap(),
            nanos(cost)
        );
    }
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 10)
        .await
        .unwrap();
    let attempts: Vec<_> = usage
        .iter()
        .map(|record| (record.attempt, record.price.input))
        .collect();
    assert_eq!(attempts, [(1, 20), (0, 10)]);
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_settlement_after_its_hold_was_lost_is_charged_late() {
    let fixture = Fixture::with(1_000).await;
    let delivered = fixture.held("delivered", 300).await.unwrap();
    let silent = fixture.held("silent", 300).await.unwrap();
    let same = fixture.held("same", 300).await.unwrap();
    let accounts = &fixture.accounts;
    accounts.checkpoint(&delivered, tokens(10, 5), at(100));
    accounts.checkpoint(&same, tokens(10, 5), at(100));
    fixture.written().await;

    lose(fixture.folder.path()).await;
    let ended = accounts.recover(at(101)).await.unwrap();
    assert_eq!(
        (ended.settled, ended.released, ended.charged),
        (2, 1, nanos(40))
    );
    assert_eq!(fixture.balance().await, (960, 0));

    // The process that was cut off comes back.
    let settle = async |hold, counts| {
        let charged = accounts.settle(hold, success(counts)).await;
        let charged = charged.unwrap();
        fixture.assert_books().await;
        charged.get()
    };
    assert_eq!(settle(delivered, tokens(10, 50)).await, 110);
    assert_eq!(settle(silent, tokens(7, 3)).await, 13);
    assert_eq!(settle(same, tokens(10, 5)).await, 20);
    assert_eq!(fixture.balance().await, (1_000 - 110 - 13 - 20, 0));
    let usage = accounts.usage(&fixture.caller.account, 10).await.unwrap();
    let mut found: Vec<_> = usage
        .iter()
        .map(|record| {
            let Counts {
                prompt, completion, ..
            } = record.counts;
            let what = (record.attempt, record.outcome, prompt, completion);
            (record.request.as_str(), what, record.cost.get())
        })
        .collect();
    found.sort_unstable_by_key(|(request, (attempt, ..), _)| (*request, *attempt));
    let expected = [
        ("delivered", (0, Outcome::Expired, 10, 5), 20),
        ("delivered", (1_000_000, Outcome::Success, 0, 45), 90),
        ("same", (0, Outcome::Expired, 10, 5), 20),
        ("silent", (1_000_000, Outcome::Success, 7, 3), 13),
    ];
    assert_eq!(found, expected);

    // A late charge can be refunded like any other.
    let refund = Refund {
        request: "delivered".to_owned(),
        attempt: 1_000_000,
        amount: None,
        idempotency_key: "back".to_owned(),
        reason: "a test".to_owned(),
    };
    let refunded = accounts.refund(refund, at(200)).await.unwrap();
    assert_eq!(refunded.amount, nanos(90));
    fixture.assert_books().await;
}

/// The money may be gone meanwhile: then only what is there is charged, and the books still add up.
#[tokio::test]
async fn what_is_charged_late_never_overdraws() {
    for (left, charged) in [(500, 290), (300, 290), (100, 100), (1, 1), (0, 0)] {
        let fixture = Fixture::with(1_000).await;
        let hold = fixture.held("lost", 300).await.unwrap();
        lose(fixture.folder.path()).await;
        fixture.accounts.recover(at(2)).await.unwrap();
        let spent = fixture.held("other", 1_000 - left).await.unwrap();
        let counts = tokens(u64::try_from(1_000 - left).unwrap(), 0);
        let settled = fixture.accounts.settle(spent, success(counts)).await;
        settled.unwrap();
        let late = fixture.accounts.settle(hold, success(tokens(290, 0)));
        assert_eq!(late.await.unwrap(), nanos(charged), "{left}");
        assert_eq!(fixture.balance().await, (left - charged, 0), "{left}");
        fixture.assert_books().await;
    }
}

#[tokio::test]
async fn what_is_charged_late_is_never_more_than_was_held() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("lost", 300).await.unwrap();
    lose(fixture.folder.path()).await;
    fixture.accounts.recover(at(2)).await.unwrap();
    let late = fixture.accounts.settle(hold, success(tokens(900, 0)));
    assert_eq!(late.await.unwrap(), nanos(300));
    assert_eq!(fixture.balance().await, (700, 0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_process_never_expires_its_own_holds() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 300).await.unwrap();
    // The clock jumps by years.
    for ended in [
        fixture.accounts.expire(at(100_000_000)).await,
        fixture.accounts.recover(at(100_000_000)).await,
    ] {
        assert_eq!(ended.unwrap().released, 0);
    }
    let charged = fixture.accounts.settle(hold, success(tokens(10, 0))).await;
    assert_eq!(charged.unwrap(), nanos(10));
}

#[tokio::test]
async fn a_dropped_hold_ends_at_its_checkpoint() {
    let fixture = Fixture::with(1_000).await;
    drop(fixture.accounts.hold(fixture.hold("pending", 100)).unwrap());
    assert_eq!(fixture.balance().await, (1_000, 0));

    let answered = fixture
        .accounts
        .hold(fixture.hold("answered", 100))
        .unwrap();
    fixture.written().await;
    assert_eq!(fixture.account().await.held, nanos(100));
    drop(answered);
    assert_eq!(fixture.balance().await, (1_000, 0));

    drop(fixture.held("unused", 100).await.unwrap());
    assert_eq!(fixture.balance().await, (1_000, 0));

    let used = fixture.held("used", 100).await.unwrap();
    fixture.accounts.checkpoint(&used, tokens(3, 1), at(2));
    fixture.accounts.checkpoint(&used, tokens(3, 9), at(3));
    drop(used);
    assert_eq!(fixture.balance().await, (1_000 - 21, 0));
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 10)
        .await
        .unwrap();
    let [record] = &usage[..] else {
        panic!("{usage:?}")
    };
    assert_eq!((record.request.as_str(), record.ended_at), ("used", at(3)));
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_released_hold_costs_nothing() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 100).await.unwrap();
    fixture.accounts.checkpoint(&hold, tokens(3, 1), at(2));
    fixture.accounts.release(hold, at(3)).await.unwrap();
    assert_eq!(fixture.balance().await, (1_000, 0));
    let usage = fixture.accounts.usage(&fixture.caller.account, 10).await;
    assert_eq!(usage.unwrap(), []);
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_hold_rolls_until_the_balance_is_used_up() {
    let fixture = Fixture::with(1_000).await;
    let mut hold = fixture.held("r1", 300).await.unwrap();
    let other = fixture.held("r2", 100).await.unwrap();
    fixture
        .accounts
        .extend(&mut hold, nanos(400), at(2))
        .await
        .unwrap();
    fixture
        .accounts
        .extend(&mut hold, nanos(0), at(2))
        .await
        .unwrap();
    assert_eq!(hold.amount(), nanos(700));
    // Its own amount would not come free: only the other hold is in the way.
    let mut check = async |more: i64, expected: &str| {
        let refused = fixture.accounts.extend(&mut hold, nanos(more), at(2)).await;
        assert_eq!(format!("{:?}", refused.unwrap_err()), expected, "{more}");
    };
    check(201, "InFlight { available: Nanos(200), held: Nanos(100) }").await;
    check(301, "BalanceTooLow { available: Nanos(200) }").await;
    assert_eq!(hold.amount(), nanos(700));
    fixture
        .accounts
        .extend(&mut hold, nanos(200), at(3))
        .await
        .unwrap();
    assert_eq!(fixture.balance().await, (1_000, 1_000));
    fixture.accounts.release(other, at(4)).await.unwrap();

    lose(fixture.folder.path()).await;
    let ended = fixture.accounts.recover(at(4)).await.unwrap();
    assert_eq!(ended.released, 1);
    let ended = fixture.accounts.extend(&mut hold, nanos(1), at(5)).await;
    assert!(matches!(ended, Err(HoldError::Ended)), "{ended:?}");
    drop(hold);
    assert_eq!(fixture.balance().await, (1_000, 0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_cost_never_exceeds_its_hold() {
    let fixture = Fixture::with(1_000).await;
    let check = async |request: &str, counts: Counts, charged: i64| {
        let hold = fixture.held(request, 100).await.unwrap();
        let cost = fixture
            .accounts
            .settle(hold, success(counts))
            .await
            .unwrap();
        assert_eq!(cost, nanos(charged), "{request}");
    };
    check("all of it", tokens(0, 50), 100).await;
    check("more than was held", tokens(0, 51), 100).await;
    check("more than can be counted", tokens(u64::MAX, u64::MAX), 100).await;
    check("nothing", tokens(0, 0), 0).await;
    assert_eq!(fixture.balance().await, (700, 0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn a_free_model_needs_no_money() {
    let fixture = Fixture::with(0).await;
    let mut new = fixture.hold("r1", 0);
    new.price = Price {
        input: 0,
        output: 0,
        cached: None,
    };
    let hold = fixture.accounts.hold(new).unwrap().durable().await.unwrap();
    let charged = fixture.accounts.settle(hold, success(tokens(9, 9))).await;
    assert_eq!(charged.unwrap(), Nanos::ZERO);
    assert_eq!(
        fixture
            .accounts
            .usage(&fixture.caller.account, 1)
            .await
            .unwrap()
            .len(),
        1
    );
    fixture.assert_books().await;
}

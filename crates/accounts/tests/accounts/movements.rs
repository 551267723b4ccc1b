//! Adjustments, promo credit, and refunds.

use jiff::SignedDuration;
use weir_accounts::{
    AccountChange, Adjustment, AdminError, Expiry, Moved, NewHold, Page, Promo, Refund, Settlement,
};

use crate::fixture::{Fixture, at, nanos, raw, success, tokens};

async fn adjust(fixture: &Fixture, amount: i64, key: &str) -> Result<Moved, AdminError> {
    let adjustment = Adjustment {
        account: fixture.caller.account.clone(),
        amount: nanos(amount),
        idempotency_key: key.to_owned(),
        reason: "a mistake".to_owned(),
    };
    fixture.accounts.adjust(adjustment, at(1)).await
}

async fn give(
    fixture: &Fixture,
    amount: i64,
    expires: i64,
    key: &str,
) -> Result<Moved, AdminError> {
    let promo = Promo {
        account: fixture.caller.account.clone(),
        amount: nanos(amount),
        expires_at: at(expires).into(),
        idempotency_key: key.to_owned(),
        reason: "welcome".to_owned(),
    };
    fixture.accounts.give_promo(promo, at(1)).await
}

async fn refund(
    fixture: &Fixture,
    amount: Option<i64>,
    key: &str,
    second: i64,
) -> Result<Moved, AdminError> {
    let refund = Refund {
        request: "r1".to_owned(),
        attempt: 0,
        amount: amount.map(nanos),
        idempotency_key: key.to_owned(),
        reason: "bad answer".to_owned(),
    };
    fixture.accounts.refund(refund, at(second)).await
}

/// A request that costs this much, held and settled at the same moment.
async fn spend(fixture: &Fixture, request: &str, cost: i64, second: i64) {
    let new = NewHold {
        now: at(second),
        ..fixture.hold(request, cost)
    };
    let hold = fixture.accounts.hold(new).unwrap().durable().await.unwrap();
    let settlement = Settlement {
        now: at(second),
        ..success(tokens(u64::try_from(cost).unwrap(), 0))
    };
    fixture.accounts.settle(hold, settlement).await.unwrap();
}

/// Posted, held, and free promo credit.
async fn money(fixture: &Fixture, second: i64) -> (i64, i64, i64) {
    fixture.accounts.expire(at(second)).await.unwrap();
    let account = fixture.account().await;
    fixture.assert_books().await;
    (
        account.posted.get(),
        account.held.get(),
        account.promo.get(),
    )
}

#[track_caller]
fn refused(outcome: Result<Moved, AdminError>, words: &str) {
    let refusal = outcome.unwrap_err().to_string();
    assert!(refusal.contains(words), "{refusal}");
}

#[tokio::test]
async fn an_adjustment_never_overdraws() {
    let fixture = Fixture::with(100).await;
    assert_eq!(adjust(&fixture, 20, "a").await.unwrap().posted, nanos(120));
    assert_eq!(adjust(&fixture, -50, "b").await.unwrap().posted, nanos(70));
    let replayed = adjust(&fixture, -50, "b").await.unwrap();
    assert_eq!((replayed.posted, replayed.replayed), (nanos(70), true));
    refused(adjust(&fixture, -51, "b").await, "used for something else");
    refused(adjust(&fixture, 0, "c").await, "can't be 0");

    // Money that is held, and promo credit, can't be taken away.
    let _hold = fixture.held("r1", 30).await.unwrap();
    give(&fixture, 500, 1_000, "promo").await.unwrap();
    refused(adjust(&fixture, -41, "c").await, "0.00000004 USD of cash");
    let limit = AccountChange {
        credit_limit: Some(nanos(5)),
        ..AccountChange::default()
    };
    let account = &fixture.caller.account;
    fixture
        .accounts
        .update_account(account, limit, at(1))
        .await
        .unwrap();
    adjust(&fixture, -45, "c").await.unwrap();
    refused(adjust(&fixture, -1, "d").await, "can't be taken");
    assert_eq!(money(&fixture, 2).await, (70 + 500 - 45, 30, 500));
    assert_eq!(money(&fixture, 1_000).await, (25, 30, 0));
    let empty = Adjustment {
        account: account.clone(),
        amount: nanos(1),
        idempotency_key: "e".to_owned(),
        reason: String::new(),
    };
    refused(fixture.accounts.adjust(empty, at(1)).await, "a reason has");
}

#[tokio::test]
async fn promotional_credit_is_used_first_and_expires() {
    let fixture = Fixture::with(100).await;
    refused(give(&fixture, 10, 1, "a").await, "expire later than now");
    refused(give(&fixture, 0, 9, "a").await, "more than 0");
    give(&fixture, 30, 500, "late").await.unwrap();
    give(&fixture, 20, 100, "soon").await.unwrap();
    assert!(give(&fixture, 20, 100, "soon").await.unwrap().replayed);
    refused(
        give(&fixture, 20, 101, "soon").await,
        "used for something else",
    );
    assert_eq!(money(&fixture, 2).await, (150, 0, 50));

    spend(&fixture, "r1", 25, 3).await;
    assert_eq!(money(&fixture, 3).await, (125, 0, 25));
    // "soon" was used first: nothing of it is left to expire.
    assert_eq!(money(&fixture, 100).await, (125, 0, 25));
    spend(&fixture, "r2", 40, 499).await;
    assert_eq!(money(&fixture, 499).await, (85, 0, 0));
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 2)
        .await
        .unwrap();
    assert_eq!([usage[0].promo, usage[1].promo], [nanos(25), nanos(25)]);
}

#[tokio::test]
async fn nothing_is_held_of_credit_that_has_expired() {
    let fixture = Fixture::with(10).await;
    give(&fixture, 50, 100, "promo").await.unwrap();
    let hold = async |request: &str, amount, second| {
        let new = NewHold {
            now: at(second),
            ..fixture.hold(request, amount)
        };
        fixture.accounts.hold(new).unwrap().durable().await
    };
    let settle = async |hold, cost, second| {
        let settlement = Settlement {
            now: at(second),
            ..success(tokens(cost, 0))
        };
        fixture.accounts.settle(hold, settlement).await.unwrap();
    };
    // The expiry isn't booked yet; the hold that would need the promo credit books it.
    let early = hold("r1", 30, 99).await.unwrap();
    assert!(hold("r2", 11, 100).await.is_err());
    let cash = hold("r3", 10, 100).await.unwrap();
    // Promo credit that a hold has stays good for it; the unused part is gone, and no more is drawn.
    settle(early, 20, 200).await;
    settle(cash, 4, 200).await;
    assert_eq!(money(&fixture, 200).await, (6, 0, 0));
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 2)
        .await
        .unwrap();
    assert_eq!([usage[0].promo, usage[1].promo], [nanos(0), nanos(20)]);
}

/// A request that had to hold cash, because another one held the promo credit, is paid with promo credit that is free
/// again.
#[tokio::test]
async fn cash_is_not_used_while_promotional_credit_is_free() {
    let fixture = Fixture::with(100).await;
    give(&fixture, 50, 1_000, "promo").await.unwrap();
    let first = fixture.held("r1", 50).await.unwrap();
    let second = fixture.held("r2", 60).await.unwrap();
    assert_eq!(money(&fixture, 2).await, (150, 110, 0));
    fixture.accounts.release(first, at(3)).await.unwrap();
    let settlement = success(tokens(55, 0));
    fixture.accounts.settle(second, settlement).await.unwrap();
    assert_eq!(money(&fixture, 6).await, (95, 0, 0));
    let usage = fixture
        .accounts
        .usage(&fixture.caller.account, 1)
        .await
        .unwrap();
    assert_eq!(usage[0].promo, nanos(50));
}

#[tokio::test]
async fn a_refund_is_never_more_than_the_cost() {
    let fixture = Fixture::with(100).await;
    spend(&fixture, "r1", 60, 3).await;
    refused(
        refund(&fixture, Some(61), "a", 4).await,
        "0.00000006 USD of this",
    );
    refused(refund(&fixture, Some(0), "a", 4).await, "more than 0");
    assert_eq!(
        refund(&fixture, Some(20), "a", 4).await.unwrap().posted,
        nanos(60)
    );
    assert!(refund(&fixture, Some(20), "a", 5).await.unwrap().replayed);
    refused(
        refund(&fixture, Some(21), "a", 5).await,
        "used for something else",
    );
    refused(
        refund(&fixture, Some(41), "b", 5).await,
        "0.00000004 USD of this",
    );
    let rest = refund(&fixture, None, "b", 6).await.unwrap();
    assert_eq!((rest.amount, rest.posted), (nanos(40), nanos(100)));
    assert!(refund(&fixture, None, "b", 6).await.unwrap().replayed);
    refused(
        refund(&fixture, None, "c", 7).await,
        "0 USD of this request",
    );
    assert_eq!(money(&fixture, 7).await, (100, 0, 0));
    let unknown = Refund {
        request: "nosuch".to_owned(),
        attempt: 0,
        amount: None,
        idempotency_key: "d".to_owned(),
        reason: "x".to_owned(),
    };
    refused(
        fixture.accounts.refund(unknown, at(1)).await,
        "no charged request",
    );
}

/// The ledger's transactions, page by page.
#[tokio::test]
async fn the_ledger_is_read_in_pages() {
    let fixture = Fixture::with(100).await;
    let account = &fixture.caller.account;
    give(&fixture, 30, 100, "promo").await.unwrap();
    spend(&fixture, "r1", 40, 3).await;
    refund(&fixture, Some(10), "a", 4).await.unwrap();
    let page = |before, limit| fixture.accounts.ledger(account, Page { before, limit });
    let all = page(None, 100).await.unwrap();
    let book = |name: &str| format!("{name}:{account}");
    let told: Vec<_> = all
        .iter()
        .map(|record| {
            let entries = record.entries.iter();
            let entries = entries.map(|(book, amount)| (book.clone(), amount.get()));
            let request = record.request.as_deref();
            (record.kind.as_str(), request, entries.collect::<Vec<_>>())
        })
        .collect();
    let entry = |name: &str, amount| (name.to_owned(), amount);
    assert_eq!(
        told,
        [
            (
                "refund",
                Some("r1"),
                vec![entry("revenue", -10), (book("wallet"), 10)]
            ),
            (
                "settle",
                Some("r1"),
                vec![(book("held"), -40), entry("revenue", 40)]
            ),
            (
                "hold",
                Some("r1"),
                vec![
                    (book("held"), 40),
                    (book("promo"), -30),
                    (book("wallet"), -10)
                ]
            ),
            (
                "promo",
                None,
                vec![(book("promo"), 30), entry("promotion", -30)]
            ),
            (
                "credit",
                None,
                vec![entry("funding", -100), (book("wallet"), 100)]
            ),
        ]
    );
    assert_eq!(all[0].reason.as_deref(), Some("bad answer"));
    assert_eq!(all[0].actor.as_deref(), Some("system"));
    assert_eq!((all[1].actor.as_deref(), all[1].posted), (None, nanos(90)));
    assert_eq!(page(None, 2).await.unwrap(), all[..2]);
    assert_eq!(page(Some(all[1].id), 2).await.unwrap(), all[2..4]);
}

/// Promo credit never becomes cash.
#[tokio::test]
async fn a_refund_comes_back_as_what_was_paid() {
    let fixture = Fixture::with(100).await;
    give(&fixture, 30, 100, "soon").await.unwrap();
    give(&fixture, 20, 500, "late").await.unwrap();
    spend(&fixture, "r1", 60, 3).await;
    assert_eq!(money(&fixture, 4).await, (90, 0, 0));
    // Cash first, then the promo that expires last.
    refund(&fixture, Some(15), "a", 5).await.unwrap();
    assert_eq!(money(&fixture, 5).await, (105, 0, 5));
    refund(&fixture, Some(25), "b", 6).await.unwrap();
    assert_eq!(money(&fixture, 6).await, (130, 0, 30));
    refused(
        refund(&fixture, Some(16), "c", 100).await,
        "can be refunded",
    );
    // Only promos that haven't expired get promo credit back.
    spend(&fixture, "r2", 1, 7).await;
    assert_eq!(money(&fixture, 100).await, (120, 0, 20));
    refused(
        refund(&fixture, None, "c", 101).await,
        "0 USD can be refunded now",
    );
    assert_eq!(money(&fixture, 500).await, (100, 0, 0));
}

/// An idempotency key pays once, whatever the kind of movement.
#[tokio::test]
async fn a_number_is_used_once_whatever_for() {
    let fixture = Fixture::with(1_000).await;
    spend(&fixture, "r1", 100, 1).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let ask = async |way: &str, number: &str| match way {
        "credit" => accounts.credit(account, nanos(50), number, "", at(2)).await,
        "promo" => give(&fixture, 50, 500, number).await,
        "adjustment" => adjust(&fixture, 50, number).await,
        _ => refund(&fixture, Some(50), number, 2).await,
    };
    for first in ["credit", "promo", "adjustment", "refund"] {
        let number = format!("the number of a {first}");
        assert!(!ask(first, &number).await.unwrap().replayed, "{first}");
        for second in ["credit", "promo", "adjustment", "refund"] {
            let again = ask(second, &number).await;
            match again {
                Ok(moved) => assert!(moved.replayed && first == second, "{first}, {second}"),
                Err(AdminError::IdempotencyConflict(_)) => assert_ne!(first, second),
                Err(other) => panic!("{first}, {second}: {other:?}"),
            }
        }
    }
    fixture.assert_books().await;
}

/// The reason is a part of what was asked.
#[tokio::test]
async fn a_number_with_another_reason_is_refused() {
    let fixture = Fixture::with(1_000).await;
    spend(&fixture, "r1", 100, 1).await;
    let accounts = &fixture.accounts;
    let account = fixture.caller.account.clone();
    let ask = async |way: &str, reason: &str| {
        let (amount, reason) = (nanos(50), reason.to_owned());
        let (account, idempotency_key) = (account.clone(), format!("the number of a {way}"));
        match way {
            "credit" => {
                let key = &idempotency_key;
                accounts.credit(&account, amount, key, &reason, at(2)).await
            }
            "promo" => {
                let promo = Promo {
                    account,
                    amount,
                    expires_at: at(500).into(),
                    idempotency_key,
                    reason,
                };
                accounts.give_promo(promo, at(2)).await
            }
            "adjustment" => {
                let adjustment = Adjustment {
                    account,
                    amount,
                    idempotency_key,
                    reason,
                };
                accounts.adjust(adjustment, at(2)).await
            }
            _ => {
                let refund = Refund {
                    request: "r1".to_owned(),
                    attempt: 0,
                    amount: Some(amount),
                    idempotency_key,
                    reason,
                };
                accounts.refund(refund, at(2)).await
            }
        }
    };
    for way in ["credit", "promo", "adjustment", "refund"] {
        assert!(!ask(way, "first").await.unwrap().replayed, "{way}");
        refused(ask(way, "second").await, "used for something else");
        assert!(ask(way, "first").await.unwrap().replayed, "{way}");
    }
    refused(ask("credit", "").await, "used for something else");
    fixture.assert_books().await;
}

/// 30 days from now are another day tomorrow, and yet the same command.
#[tokio::test]
async fn a_promo_for_some_days_can_be_asked_for_again() {
    let fixture = Fixture::with(0).await;
    let ask = async |length: i64, second: i64| {
        let promo = Promo {
            account: fixture.caller.account.clone(),
            amount: nanos(50),
            expires_at: Expiry::In(SignedDuration::from_hours(24 * length)),
            idempotency_key: "promo".to_owned(),
            reason: "welcome".to_owned(),
        };
        fixture.accounts.give_promo(promo, at(second)).await
    };
    assert!(!ask(30, 1).await.unwrap().replayed);
    assert!(ask(30, 90_000).await.unwrap().replayed);
    refused(ask(31, 90_000).await, "used for something else");
    // Long after the promo has expired, its idempotency key is still known.
    let give = async |second: i64| {
        let promo = Promo {
            account: fixture.caller.account.clone(),
            amount: nanos(70),
            expires_at: at(500).into(),
            idempotency_key: "until then".to_owned(),
            reason: "welcome".to_owned(),
        };
        fixture.accounts.give_promo(promo, at(second)).await
    };
    assert!(!give(1).await.unwrap().replayed);
    assert!(give(1_000).await.unwrap().replayed);
    assert_eq!(fixture.account().await.promo, nanos(120));
}

/// Idempotency keys of old versions, which had a name space for each kind of movement and one for the command line.
#[tokio::test]
async fn old_numbers_are_still_known() {
    for old in [
        "credit:n",
        "credit:cli:n",
        "credit:api:n",
        "credit:credit:n",
        "promo:cli:n",
    ] {
        let fixture = Fixture::with(0).await;
        let account = &fixture.caller.account;
        let credit = async || {
            fixture
                .accounts
                .credit(account, nanos(50), "n", "", at(2))
                .await
        };
        credit().await.unwrap();
        let mut raw = raw(fixture.folder.path()).await;
        raw.disable_triggers().await;
        let sql = format!(
            "UPDATE ledger_transaction SET idempotency_key = '{old}', kind = split.kind
             FROM (SELECT '{}' AS kind) split WHERE idempotency_key LIKE 'move:%:n'",
            old.split(':').next().unwrap()
        );
        raw.execute(&sql).await.unwrap();
        let again = credit().await;
        let known = matches!(&again, Ok(moved) if moved.replayed)
            || matches!(again, Err(AdminError::IdempotencyConflict(_)));
        assert!(known, "{old}: {again:?}");
    }
}

//! A system clock that is far off destroys nothing.

use jiff::SignedDuration;
use weir_accounts::{Accounts, By, Expiry, KeyChange, KeyOptions, Nanos, Promo, Role, SpendCaps};

use crate::fixture::{Fixture, at, nanos, open, success, tokens};

const DAY: i64 = 86_400;

async fn promo(fixture: &Fixture) -> Nanos {
    fixture.account().await.promo
}

async fn with_promo(amount: i64, expires: i64) -> Fixture {
    let fixture = Fixture::with(1_000).await;
    let promo = Promo {
        account: fixture.caller.account.clone(),
        amount: nanos(amount),
        expires_at: at(expires).into(),
        idempotency_key: "promo".to_owned(),
        reason: "a test".to_owned(),
    };
    fixture.accounts.give_promo(promo, at(0)).await.unwrap();
    fixture
}

/// With a clock years ahead no promo credit expires; it is used as if the newest time in the books were
/// now. Once the clock is accepted, time goes on from there.
#[tokio::test]
async fn nothing_expires_by_a_clock_that_is_far_ahead() {
    let fixture = with_promo(300, 30 * DAY).await;
    let accounts = &fixture.accounts;
    accounts.expire(at(3_650 * DAY)).await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(300));
    let new = weir_accounts::NewHold {
        now: at(3_650 * DAY),
        ..fixture.hold("ahead", 200)
    };
    let hold = accounts.hold(new).unwrap().durable().await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(100), "the promo is used");
    let charged = accounts.settle(hold, success(tokens(50, 0))).await;
    assert_eq!(charged.unwrap(), nanos(50));
    assert_eq!(promo(&fixture).await, nanos(250));
    fixture.assert_books().await;

    accounts.expire(at(6 * DAY)).await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(250));
    let state = accounts.clock(at(31 * DAY)).await.unwrap();
    assert!(!state.trusted);
    accounts.expire(at(31 * DAY)).await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(250));
    accounts.accept_clock(at(31 * DAY)).await.unwrap();
    assert!(accounts.clock(at(31 * DAY)).await.unwrap().trusted);
    accounts.expire(at(31 * DAY)).await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn nothing_is_pruned_by_a_clock_that_is_far_ahead() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 100).await.unwrap();
    let accounts = &fixture.accounts;
    accounts.settle(hold, success(tokens(10, 0))).await.unwrap();
    let account = &fixture.caller.account;
    let now = at(3_650 * DAY);
    accounts.prune_usage(at(3_560 * DAY), now).await.unwrap();
    assert_eq!(accounts.usage(account, 10).await.unwrap().len(), 1);
    accounts.accept_clock(now).await.unwrap();
    accounts.prune_usage(at(3_560 * DAY), now).await.unwrap();
    assert_eq!(accounts.usage(account, 10).await.unwrap().len(), 0);
    fixture.assert_books().await;
}

/// A charge that is made while the clock is 400 days ahead counts for a daily cap as long as the clock is ahead, and
/// doesn't lock the key out for 400 days afterwards.
#[tokio::test]
async fn a_daily_cap_is_not_moved_by_a_clock_that_was_ahead() {
    let mut fixture = Fixture::with(10_000).await;
    let options = KeyOptions {
        caps: SpendCaps {
            day: Some(nanos(100)),
            ..SpendCaps::default()
        },
        ..KeyOptions::default()
    };
    let accounts = fixture.accounts.clone();
    let key = accounts.add_key_with(&fixture.caller.account, options, at(0));
    let key = key.await.unwrap();
    let caller = accounts.authenticate(key.secret.expose(), at(0)).await;
    fixture.caller = caller.unwrap();
    let spend = async |request: &str, second: i64| {
        let new = weir_accounts::NewHold {
            now: at(second),
            ..fixture.hold(request, 60)
        };
        let hold = fixture.accounts.hold(new).unwrap().durable().await.ok()?;
        let settlement = weir_accounts::Settlement {
            now: at(second),
            ..success(tokens(60, 0))
        };
        fixture.accounts.settle(hold, settlement).await.ok()
    };
    let ahead = 400 * DAY;
    assert!(spend("first", ahead).await.is_some());
    assert!(spend("second", ahead).await.is_none(), "the cap holds");
    assert!(
        spend("third", 10).await.is_some(),
        "the clock is right again"
    );
    assert!(spend("fourth", 20).await.is_none(), "the cap holds");
    assert!(spend("next day", DAY + 20).await.is_some());
    let spent = accounts.key_spend(&fixture.caller.key, at(20)).await;
    assert_eq!(spent.unwrap().day, nanos(120), "with the day after");
    fixture.assert_books().await;
}

/// A server goes by the books' time: with a clock 400 days back, an expired key stays expired.
#[tokio::test]
async fn a_clock_that_is_far_behind_is_not_gone_by() {
    let fixture = Fixture::with(1_000).await;
    let options = KeyOptions {
        expires_at: Some(at(60).into()),
        ..KeyOptions::default()
    };
    let key = fixture
        .accounts
        .add_key_with(&fixture.caller.account, options, at(0))
        .await
        .unwrap();
    assert_eq!(fixture.accounts.time(at(100)), at(100));
    fixture.written().await;
    fixture.accounts.close().await;

    let restarted = restarted(&fixture, -400 * DAY).await;
    let now = restarted.time(at(-400 * DAY));
    assert!(now >= at(100), "{now}");
    let refused = restarted.authenticate(key.secret.expose(), now).await;
    assert!(refused.is_err(), "{refused:?}");
    let state = restarted.clock(at(-400 * DAY)).await.unwrap();
    assert_eq!((state.newest, state.trusted), (at(100), false));
    assert!(restarted.clock(at(130)).await.unwrap().trusted);
    assert_eq!(restarted.time(at(130)), at(130));
}

async fn restarted(fixture: &Fixture, second: i64) -> Accounts {
    let options = crate::fixture::options(fixture.folder.path(), Role::Server).await;
    Accounts::open(options, at(second)).await.unwrap()
}

/// A clock that one process accepts is followed by another.
#[tokio::test]
async fn an_accepted_clock_is_seen_by_the_server() {
    let fixture = with_promo(300, 30 * DAY).await;
    let tool = open(fixture.folder.path(), Role::Tool).await;
    tool.accept_clock(at(40 * DAY)).await.unwrap();
    assert!(fixture.accounts.clock(at(40 * DAY)).await.unwrap().trusted);
    assert_eq!(fixture.accounts.time(at(40 * DAY)), at(40 * DAY));
    fixture.accounts.expire(at(40 * DAY)).await.unwrap();
    assert_eq!(promo(&fixture).await, nanos(0));
}

/// Nothing is granted for a length of time from a clock that is far off, and no secret is shown for it.
#[tokio::test]
async fn no_length_of_time_counts_from_a_clock_that_is_far_off() {
    let fixture = Fixture::with(1_000).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let id = fixture.caller.key.as_str();
    let month = SignedDuration::from_hours(30 * 24);
    let expiring = || KeyOptions {
        expires_at: Some(Expiry::In(month)),
        ..KeyOptions::default()
    };
    let change = || KeyChange {
        expires_at: Some(Some(Expiry::In(month))),
        ..KeyChange::default()
    };
    let promo = || Promo {
        account: account.clone(),
        amount: nanos(1),
        expires_at: Expiry::In(month),
        idempotency_key: "promo".to_owned(),
        reason: "a test".to_owned(),
    };
    for second in [3_650 * DAY, -400 * DAY] {
        let by = By::from(at(second));
        let outcomes = [
            accounts
                .add_key_with(account, expiring(), by.clone())
                .await
                .map(drop),
            accounts
                .draft_key(account, expiring(), by.clone())
                .await
                .map(drop),
            accounts
                .update_key(id, change(), by.clone())
                .await
                .map(drop),
            accounts.rotate_key(id, month, by.clone()).await.map(drop),
            accounts
                .draft_rotation(id, month, by.clone())
                .await
                .map(drop),
            accounts.give_promo(promo(), by).await.map(drop),
        ];
        for (way, outcome) in outcomes.into_iter().enumerate() {
            let said = outcome.unwrap_err().to_string();
            assert!(said.contains("weir clock accept"), "{way}: {said}");
        }
    }
    let by = By::from(at(0));
    accounts.give_promo(promo(), by.clone()).await.unwrap();
    accounts.update_key(id, change(), by.clone()).await.unwrap();
    accounts
        .add_key_with(account, expiring(), by)
        .await
        .unwrap();
}

/// Years ahead, a key and an old secret that haven't expired by the newest time in the books are accepted, and those that
/// have expired by it are not, until the clock is accepted.
#[tokio::test]
async fn keys_expire_by_the_newest_time_in_the_books() {
    let fixture = Fixture::with(1_000).await;
    let (accounts, account) = (&fixture.accounts, &fixture.caller.account);
    let ahead = 3_650 * DAY;
    let expiring = |second: i64| KeyOptions {
        expires_at: Some(at(second).into()),
        ..KeyOptions::default()
    };
    let made = async |expires: i64, now: i64| {
        let key = accounts.add_key_with(account, expiring(expires), at(now));
        key.await.map(|key| key.secret.expose().to_owned())
    };
    let past = made(0, -10).await.unwrap();
    let future = made(5 * DAY, 0).await.unwrap();
    let future_by_a_wrong_clock = made(5 * DAY, ahead).await.unwrap();
    assert!(made(0, ahead).await.is_err());
    let rotated = accounts.add_key(account, None, at(0)).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let id = rotated.id.as_str();
    accounts.rotate_key(id, day, at(0)).await.unwrap();
    let at_once = accounts.add_key(account, None, at(0)).await.unwrap();
    let id = at_once.id.as_str();
    let zero = SignedDuration::ZERO;
    accounts.rotate_key(id, zero, at(ahead)).await.unwrap();
    let rows = [
        (past.as_str(), false, false),
        (&future, true, false),
        (&future_by_a_wrong_clock, true, false),
        (rotated.secret.expose(), true, false),
        (at_once.secret.expose(), false, false),
    ];
    let accepted = async |secret: &str| accounts.authenticate(secret, at(ahead)).await.is_ok();
    for (row, (secret, before, _)) in rows.iter().enumerate() {
        assert_eq!(accepted(secret).await, *before, "row {row}");
    }
    accounts.accept_clock(at(ahead)).await.unwrap();
    for (row, (secret, _, after)) in rows.iter().enumerate() {
        assert_eq!(accepted(secret).await, *after, "row {row}, accepted");
    }
}

/// A secret that is rotated by a clock that is ahead would be accepted for as long.
#[tokio::test]
async fn no_grace_is_given_by_a_clock_that_is_far_off() {
    let fixture = Fixture::with(1_000).await;
    let id = fixture.caller.key.as_str();
    for second in [400 * DAY, -400 * DAY] {
        let by = By::from(at(second));
        let hour = SignedDuration::from_hours(1);
        let refused = fixture.accounts.rotate_key(id, hour, by.clone()).await;
        assert!(refused.is_err(), "{refused:?}");
        let zero = SignedDuration::ZERO;
        fixture.accounts.rotate_key(id, zero, by).await.unwrap();
    }
}

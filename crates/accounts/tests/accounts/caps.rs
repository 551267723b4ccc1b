//! Spend caps of keys.

use weir_accounts::{
    CapPeriod, Hold, HoldError, KeyOptions, NewHold, Outcome, Settlement, Source, SpendCaps,
};

use crate::fixture::{Fixture, at, nanos, tokens};

/// The fixture's clock begins at 2023-11-14 22:13:20 UTC: this is midnight, and then the first of December.
const NEXT_DAY: i64 = 6_400;
const NEXT_MONTH: i64 = NEXT_DAY + 16 * 86_400;

struct Capped {
    fixture: Fixture,
    requests: u32,
}

impl Capped {
    async fn with(caps: SpendCaps) -> Self {
        let mut fixture = Fixture::with(100_000).await;
        let options = KeyOptions {
            caps,
            ..KeyOptions::default()
        };
        let accounts = &fixture.accounts;
        let account = &fixture.caller.account;
        let key = accounts
            .add_key_with(account, options, at(0))
            .await
            .unwrap();
        let caller = accounts.authenticate(key.secret.expose(), at(0)).await;
        fixture.caller = caller.unwrap();
        let requests = 0;
        Capped { fixture, requests }
    }

    async fn hold(&mut self, amount: i64, second: i64) -> Result<Hold, HoldError> {
        self.requests += 1;
        let new = NewHold {
            now: at(second),
            ..self.fixture.hold(&format!("r{}", self.requests), amount)
        };
        self.fixture.accounts.hold(new).unwrap().durable().await
    }

    async fn settle(&self, hold: Hold, cost: u64, second: i64) {
        let settlement = Settlement {
            counts: tokens(cost, 0),
            outcome: Outcome::Success,
            source: Source::Engine,
            now: at(second),
        };
        self.fixture
            .accounts
            .settle(hold, settlement)
            .await
            .unwrap();
    }

    /// Holds and spends this much, if the hold is granted.
    async fn spend(&mut self, cost: i64, second: i64) -> Result<(), HoldError> {
        let hold = self.hold(cost, second).await?;
        self.settle(hold, u64::try_from(cost).unwrap(), second)
            .await;
        Ok(())
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, HoldError>, expected: (CapPeriod, i64, bool)) {
    let Err(HoldError::KeyCap {
        period,
        available,
        in_flight,
    }) = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!((period, available.get(), in_flight), expected);
}

#[tokio::test]
async fn open_holds_count_as_spent() {
    let mut capped = Capped::with(SpendCaps {
        total: Some(nanos(100)),
        ..SpendCaps::default()
    })
    .await;
    refused(capped.hold(101, 1).await, (CapPeriod::Total, 100, false));
    let mut one = capped.hold(60, 1).await.unwrap();
    refused(capped.hold(41, 1).await, (CapPeriod::Total, 40, true));
    let two = capped.hold(30, 1).await.unwrap();

    let accounts = capped.fixture.accounts.clone();
    let more = accounts.extend(&mut one, nanos(11), at(2)).await;
    refused(more, (CapPeriod::Total, 10, true));
    accounts.extend(&mut one, nanos(10), at(2)).await.unwrap();
    let more = accounts.extend(&mut one, nanos(50), at(2)).await;
    refused(more, (CapPeriod::Total, 0, false));

    // The part of a hold that its request doesn't cost is available again.
    capped.settle(one, 5, 3).await;
    accounts.release(two, at(3)).await.unwrap();
    refused(capped.hold(96, 4).await, (CapPeriod::Total, 95, false));
    capped.spend(95, 4).await.unwrap();
    refused(
        capped.hold(1, NEXT_MONTH).await,
        (CapPeriod::Total, 0, false),
    );
    capped.hold(0, 4).await.unwrap();
    capped.fixture.assert_books().await;
}

#[tokio::test]
async fn days_and_months_begin_at_midnight_utc() {
    let mut capped = Capped::with(SpendCaps {
        month: Some(nanos(250)),
        day: Some(nanos(100)),
        total: None,
    })
    .await;
    capped.spend(100, 1).await.unwrap();
    refused(
        capped.hold(1, NEXT_DAY - 1).await,
        (CapPeriod::Day, 0, false),
    );
    capped.spend(100, NEXT_DAY).await.unwrap();
    refused(capped.hold(1, NEXT_DAY).await, (CapPeriod::Day, 0, false));
    // A clock that is set back over midnight gives nothing for free.
    refused(
        capped.hold(1, NEXT_DAY - 1).await,
        (CapPeriod::Day, 0, false),
    );
    let day = 86_400;
    refused(
        capped.hold(51, NEXT_DAY + day).await,
        (CapPeriod::Month, 50, false),
    );
    capped.spend(50, NEXT_DAY + day).await.unwrap();
    let clock = capped.fixture.accounts.accept_clock(at(NEXT_MONTH));
    clock.await.unwrap();
    refused(
        capped.hold(1, NEXT_MONTH - 1).await,
        (CapPeriod::Month, 0, false),
    );
    capped.spend(100, NEXT_MONTH).await.unwrap();
    let _open = capped.hold(0, NEXT_MONTH).await.unwrap();
    let key = &capped.fixture.caller.key;
    let accounts = &capped.fixture.accounts;
    // The first of December 2023 was a Friday.
    let spent = accounts.key_spend(key, at(NEXT_MONTH)).await.unwrap();
    let (all, december) = (nanos(350), nanos(100));
    assert_eq!((spent.total, spent.held), (all, nanos(0)));
    assert_eq!([spent.month, spent.week, spent.day], [december; 3]);
    let spent = accounts
        .key_spend(key, at(NEXT_MONTH + 3 * day))
        .await
        .unwrap();
    assert_eq!(
        [spent.month, spent.week, spent.day],
        [december, nanos(0), nanos(0)]
    );
    capped.fixture.assert_books().await;
}

#[tokio::test]
async fn a_cap_is_for_its_key_only() {
    let mut capped = Capped::with(SpendCaps {
        day: Some(nanos(0)),
        ..SpendCaps::default()
    })
    .await;
    refused(capped.hold(1, 1).await, (CapPeriod::Day, 0, false));
    let account = capped.fixture.caller.account.clone();
    let accounts = capped.fixture.accounts.clone();
    let free = accounts.add_key(&account, None, at(0)).await.unwrap();
    let caller = accounts.authenticate(free.secret.expose(), at(0)).await;
    capped.fixture.caller = caller.unwrap();
    capped.spend(500, 1).await.unwrap();
    // A hold that the balance can't cover is refused for that, cap or not.
    let too_much = capped.hold(100_000, 1).await;
    assert!(
        matches!(too_much, Err(HoldError::BalanceTooLow { .. })),
        "{too_much:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_stay_below_the_cap() {
    let capped = Capped::with(SpendCaps {
        total: Some(nanos(1_000)),
        ..SpendCaps::default()
    })
    .await;
    let requests = (0..60).map(async |n| {
        let new = capped.fixture.hold(&format!("p{n}"), 100);
        let hold = capped.fixture.accounts.hold(new).unwrap().durable().await?;
        capped.settle(hold, 70, 2).await;
        Ok::<(), HoldError>(())
    });
    let done = futures::future::join_all(requests).await;
    let granted = done.iter().filter(|done| done.is_ok()).count();
    assert!((10..=14).contains(&granted), "{granted}");
    assert_eq!(
        capped.fixture.balance().await.0,
        100_000 - 70 * i64::try_from(granted).unwrap()
    );
    capped.fixture.assert_books().await;
}

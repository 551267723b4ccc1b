//! The writer under bad conditions.

use std::time::Duration;

use weir_accounts::{Accounts, HoldError, Options, Role};

use crate::POSTGRES;
use crate::fixture::{Fixture, Raw, at, caller, nanos, options, raw, success, tokens};

/// Keeps all others from writing as long as the returned connection lives.
async fn lock(fixture: &Fixture) -> Raw {
    let mut other = raw(fixture.folder.path()).await;
    let lock = if POSTGRES {
        "BEGIN; LOCK TABLE hold, balance IN EXCLUSIVE MODE"
    } else {
        "BEGIN IMMEDIATE"
    };
    other.execute(lock).await.unwrap();
    other
}

/// While the database is locked, the writer takes at most the first operation; the others then share a transaction.
#[tokio::test(flavor = "current_thread")]
async fn one_refused_operation_does_not_spoil_the_others() {
    let fixture = Fixture::with(1_000).await;
    let mut unknown = fixture.hold("unknown key", 1);
    let other = Fixture::with(0).await;
    unknown.caller = other.caller.clone();
    let mut locked = lock(&fixture).await;
    let pending = [
        fixture.hold("first", 400),
        fixture.hold("too much", 700),
        unknown,
        fixture.hold("first", 1),
        fixture.hold("last", 600),
    ]
    .map(|new| fixture.accounts.hold(new).unwrap());
    let [first, too_much, unknown, replay, last] = pending;
    locked.execute("ROLLBACK").await.unwrap();
    let first = first.durable().await.unwrap();
    assert_eq!(first.amount(), nanos(400));
    let too_much = too_much.durable().await;
    assert!(
        matches!(too_much, Err(HoldError::InFlight { .. })),
        "{too_much:?}"
    );
    let unknown = unknown.durable().await;
    assert!(matches!(unknown, Err(HoldError::Store(_))), "{unknown:?}");
    assert_eq!(replay.durable().await.unwrap().amount(), nanos(400));
    assert_eq!(last.durable().await.unwrap().amount(), nanos(600));
    drop(first);
    assert_eq!(fixture.balance().await, (1_000, 0));
    fixture.assert_books().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_full_queue_is_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let small = Options {
        queue: 2,
        ..options(folder.path(), Role::Server).await
    };
    let accounts = Accounts::open(small, at(0)).await.unwrap();
    let fixture = Fixture {
        caller: caller(&accounts, 1_000).await,
        accounts,
        folder,
    };
    let mut locked = lock(&fixture).await;
    let mut pending = Vec::new();
    let refused = loop {
        // Operations that the writer has taken for its transaction aren't in the queue any more.
        assert!(pending.len() < 300, "the queue has no end");
        let next = format!("r{}", pending.len());
        match fixture.accounts.hold(fixture.hold(&next, 1)) {
            Ok(hold) => pending.push(hold),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, HoldError::Overloaded), "{refused:?}");
    assert!(pending.len() >= 2, "the queue has two places");
    locked.execute("ROLLBACK").await.unwrap();
    let mut holds = Vec::new();
    for hold in pending {
        holds.push(hold.durable().await.unwrap());
    }
    assert!(fixture.held("later", 1).await.is_ok());
    drop(holds);
    assert_eq!(fixture.balance().await, (1_000, 0));
}

/// Another process keeps the database locked: callers that wait get an error, keep their holds, and can go on once it
/// is unlocked.
#[tokio::test]
async fn a_locked_database_is_an_error_and_then_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let hasty = Options {
        // On PostgreSQL this is the time limit of all statements, and a busy machine must not be taken for a lock.
        timeout: Duration::from_millis(if POSTGRES { 2_000 } else { 20 }),
        ..options(folder.path(), Role::Server).await
    };
    let accounts = Accounts::open(hasty, at(0)).await.unwrap();
    let fixture = Fixture {
        caller: caller(&accounts, 1_000).await,
        accounts,
        folder,
    };
    let settled = fixture.held("settled", 100).await.unwrap();
    let dropped = fixture.held("dropped", 100).await.unwrap();
    let mut other = lock(&fixture).await;

    let refused = fixture.held("refused", 100).await;
    assert!(matches!(refused, Err(HoldError::Store(_))), "{refused:?}");
    let failed = fixture
        .accounts
        .settle(settled, success(tokens(10, 0)))
        .await
        .unwrap_err();
    let said = if POSTGRES { "timeout" } else { "locked" };
    assert!(failed.error.to_string().contains(said), "{}", failed.error);
    fixture.accounts.checkpoint(&dropped, tokens(20, 0), at(2));
    drop(dropped);
    assert!(fixture.accounts.expire(at(0)).await.is_err());
    // Readers don't notice.
    assert_eq!(fixture.account().await.held, nanos(200));

    other.execute("ROLLBACK").await.unwrap();
    let charged = fixture
        .accounts
        .settle(failed.hold, success(tokens(10, 0)))
        .await;
    assert_eq!(charged.unwrap(), nanos(10));
    assert_eq!(fixture.balance().await, (1_000 - 10 - 20, 0));
    fixture.assert_books().await;
}

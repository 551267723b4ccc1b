//! Ends of requests that are noted beside the database while it can't be written.

use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_accounts::{Accounts, OpenError, Options, Outcome, Role, SpillOptions};

use crate::POSTGRES;
use crate::fixture::{Fixture, Raw, at, caller, long_after, nanos, options, raw, success, tokens};

async fn spilling(folder: &Path) -> Options {
    Options {
        spill: Some(SpillOptions {
            folder: folder.to_owned(),
            requests_max: 8,
        }),
        ..options(folder, Role::Server).await
    }
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let accounts = Accounts::open(spilling(folder.path()).await, at(0)).await;
    let accounts = accounts.unwrap();
    let caller = caller(&accounts, 1_000).await;
    Fixture {
        folder,
        accounts,
        caller,
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// Makes writing fail.
async fn break_writing(folder: &Path) -> Raw {
    let mut raw = raw(folder).await;
    raw.execute("ALTER TABLE hold RENAME TO hold_away")
        .await
        .unwrap();
    raw
}

async fn mend_writing(mut raw: Raw) {
    raw.execute("ALTER TABLE hold_away RENAME TO hold")
        .await
        .unwrap();
}

/// Lets a process die while the database can't be written.
fn crash() -> TempDir {
    let runtime = runtime();
    let (fixture, holds) = runtime.block_on(async {
        let fixture = fixture().await;
        let accounts = &fixture.accounts;
        let complete = fixture.held("complete", 100).await.unwrap();
        let streaming = fixture.held("streaming", 100).await.unwrap();
        let untouched = fixture.held("untouched", 100).await.unwrap();
        accounts.checkpoint(&streaming, tokens(10, 1), at(2));
        fixture.written().await;

        let broken = break_writing(fixture.folder.path()).await;
        accounts.checkpoint(&streaming, tokens(10, 30), at(4));
        let failed = accounts.settle(complete, success(tokens(10, 20)));
        let complete = failed.await.unwrap_err().hold;
        accounts
            .keep(&complete, success(tokens(10, 20)))
            .await
            .unwrap();
        assert_eq!(accounts.kept(), 2);
        mend_writing(broken).await;
        (fixture, [complete, streaming, untouched])
    });
    drop(runtime);
    drop(holds);
    fixture.folder
}

/// The next process charges what the dead one had delivered.
#[test]
fn what_was_kept_is_charged_by_the_next_start() {
    let folder = crash();
    runtime().block_on(async {
        let next = Accounts::open(spilling(folder.path()).await, at(10)).await;
        let next = next.unwrap();
        long_after(folder.path()).await;
        let recovered = next.recover(at(10)).await.unwrap();
        assert_eq!((recovered.settled, recovered.released), (2, 1));
        assert_eq!(recovered.charged, nanos(50 + 70));
        let account = next.account("demo").await.unwrap();
        assert_eq!(
            (account.posted, account.held),
            (nanos(1_000 - 120), nanos(0))
        );
        let usage = next.usage(&account.id, 10).await.unwrap();
        let mut found: Vec<_> = usage
            .iter()
            .map(|record| (record.request.as_str(), record.outcome, record.cost.get()))
            .collect();
        found.sort_by_key(|(request, ..)| *request);
        let expected = [
            ("complete", Outcome::Success, 50),
            ("streaming", Outcome::Expired, 70),
        ];
        assert_eq!(found, expected);
        assert_eq!(next.verify().await.unwrap(), [""; 0]);
        next.close().await;
        drop(next);
        let last = Accounts::open(spilling(folder.path()).await, at(11)).await;
        assert_eq!(last.unwrap().kept(), 0, "it is kept no more");
    });
}

/// The same process brings its note into the database when that is back, and nothing is left beside it.
#[tokio::test]
async fn what_is_settled_at_last_is_kept_no_more() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let hold = fixture.held("r1", 100).await.unwrap();
    let other = fixture.held("r2", 100).await.unwrap();
    let broken = break_writing(fixture.folder.path()).await;
    let failed = accounts
        .settle(hold, success(tokens(10, 0)))
        .await
        .unwrap_err();
    accounts
        .keep(&failed.hold, success(tokens(10, 0)))
        .await
        .unwrap();
    mend_writing(broken).await;
    let charged = accounts.settle(failed.hold, success(tokens(10, 0))).await;
    assert_eq!(charged.unwrap(), nanos(10));
    fixture.assert_books().await;
    // The spill thread works in order: by now the first slot is free.
    accounts.keep(&other, success(tokens(1, 0))).await.unwrap();
    assert_eq!(accounts.kept(), 1, "only the other one's");
}

/// There is room for 8 notes; and without a spill file, a note is an error.
#[tokio::test]
async fn it_is_said_when_there_is_no_room() {
    let fixture = fixture().await;
    let mut holds = Vec::new();
    for number in 0..9 {
        holds.push(fixture.held(&format!("r{number}"), 10).await.unwrap());
    }
    for (number, hold) in holds.iter().enumerate() {
        let kept = fixture.accounts.keep(hold, success(tokens(1, 0))).await;
        assert_eq!(kept.is_ok(), number < 8, "{number}: {kept:?}");
    }
    let without = Fixture::with(100).await;
    let hold = without.held("r1", 10).await.unwrap();
    without
        .accounts
        .keep(&hold, success(tokens(1, 0)))
        .await
        .unwrap_err();
}

/// Two processes with one folder have a file each; the notes of a dead one are brought in by the next one that starts.
#[test]
fn processes_share_a_folder() {
    if !POSTGRES {
        return;
    }
    let runtime_of_first = runtime();
    let first = runtime_of_first.block_on(fixture());
    let runtime_of_second = runtime();
    let (second, hold) = runtime_of_second.block_on(async {
        let options = spilling(first.folder.path()).await;
        let second = Accounts::open(options, at(0)).await.unwrap();
        let hold = second.hold(first.hold("second", 100)).unwrap().durable();
        let hold = hold.await.unwrap();
        second.keep(&hold, success(tokens(10, 0))).await.unwrap();
        (second, hold)
    });
    drop(runtime_of_second);
    drop((hold, second));
    runtime_of_first.block_on(async {
        let options = spilling(first.folder.path()).await;
        let third = Accounts::open(options, at(0)).await.unwrap();
        let recovered = third.recover(at(9)).await.unwrap();
        assert_eq!((recovered.settled, recovered.charged), (1, nanos(10)));
        first.assert_books().await;
    });
}

/// A server without room for its spill file doesn't start.
#[tokio::test]
async fn a_start_without_room_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("unsettled-0")).unwrap();
    let options = spilling(folder.path()).await;
    let refused = Accounts::open(options, at(0)).await;
    assert!(matches!(refused, Err(OpenError::Spill(_))), "{refused:?}");
}

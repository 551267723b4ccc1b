//! A process dies: its runtime is dropped in the middle of everything, nothing is closed.

use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_accounts::{Outcome, Recovered, Role, Source};

use crate::fixture::{Fixture, at, long_after, nanos, open, success, tokens};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A process with four requests, one of them done, dies.
fn crash() -> TempDir {
    let runtime = runtime();
    let (fixture, holds) = runtime.block_on(async {
        let fixture = Fixture::with(1_000).await;
        let done = fixture.held("done", 100).await.unwrap();
        let waiting = fixture.held("waiting", 100).await.unwrap();
        let mut rolling = fixture.held("rolling", 100).await.unwrap();
        let streaming = fixture.held("streaming", 100).await.unwrap();
        fixture
            .accounts
            .settle(done, success(tokens(10, 0)))
            .await
            .unwrap();
        fixture
            .accounts
            .extend(&mut rolling, nanos(100), at(2))
            .await
            .unwrap();
        fixture.accounts.checkpoint(&rolling, tokens(10, 60), at(2));
        fixture
            .accounts
            .checkpoint(&streaming, tokens(10, 10), at(2));
        fixture.written().await;
        (fixture, [waiting, rolling, streaming])
    });
    // A checkpoint after the last durable one is lost, at the operator's cost.
    drop(runtime);
    fixture
        .accounts
        .checkpoint(&holds[2], tokens(10, 30), at(3));
    drop(holds);
    fixture.folder
}

async fn balance(folder: &Path) -> (i64, i64) {
    let account = open(folder, Role::Tool)
        .await
        .account("demo")
        .await
        .unwrap();
    (account.posted.get(), account.held.get())
}

#[test]
fn open_holds_of_a_dead_process_end_at_their_checkpoints() {
    let folder = crash();
    runtime().block_on(async {
        let folder = folder.path();
        assert_eq!(balance(folder).await, (990, 400));
        let tool = open(folder, Role::Tool).await;
        assert_eq!(
            tool.recover(at(9)).await.unwrap(),
            Recovered::default(),
            "they may be alive"
        );

        let server = open(folder, Role::Server).await;
        long_after(folder).await;
        let recovered = server.recover(at(9)).await.unwrap();
        let expected = Recovered {
            settled: 2,
            released: 1,
            charged: nanos(130 + 30),
        };
        assert_eq!(recovered, expected);
        assert_eq!(server.recover(at(9)).await.unwrap(), Recovered::default());
        assert_eq!(balance(folder).await, (830, 0));
        assert_eq!(server.verify().await.unwrap(), Vec::<String>::new());

        let account = server.account("demo").await.unwrap();
        let usage = server.usage(&account.id, 10).await.unwrap();
        let found: Vec<_> = usage
            .iter()
            .map(|record| (record.request.as_str(), record.outcome, record.cost.get()))
            .collect();
        let expected = [
            ("streaming", Outcome::Expired, 30),
            ("rolling", Outcome::Expired, 130),
            ("done", Outcome::Success, 10),
        ];
        assert_eq!(found, expected);
        assert_eq!(usage[0].source, Source::Estimated);
    });
}

/// The first restart ends the holds of the process that died; a second restart of the same node finds none.
#[test]
fn a_restarted_server_knows_its_predecessors_holds() {
    let folder = crash();
    runtime().block_on(async {
        let first = open(folder.path(), Role::Server).await;
        long_after(folder.path()).await;
        first.recover(at(9)).await.unwrap();
        first.close().await;
        let second = open(folder.path(), Role::Server).await;
        long_after(folder.path()).await;
        assert_eq!(second.recover(at(9)).await.unwrap(), Recovered::default());
        assert_eq!(balance(folder.path()).await, (830, 0));
    });
}

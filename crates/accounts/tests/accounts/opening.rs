//! Opening and closing.

use std::os::unix::fs::PermissionsExt;

use futures::future::join_all;
use sqlx::Executor;
use weir_accounts::{Accounts, HoldError, OpenError, Role};

use crate::fixture::{Fixture, at, database, nanos, open, options, raw, success, tokens};

#[tokio::test]
async fn only_its_owner_can_read_the_database() {
    let folder = tempfile::tempdir().unwrap();
    // Made by something less careful.
    std::fs::write(database(folder.path()), "").unwrap();
    let accounts = open(folder.path(), Role::Server).await;
    accounts.add_account("demo", at(0)).await.unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
        files += 1;
    }
    assert_eq!(files, 4, "the database, its log and index, and the lock");
}

#[tokio::test]
async fn two_servers_do_not_share_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(folder.path(), Role::Server).await;
    let second = Accounts::open(options(folder.path(), Role::Server), at(0)).await;
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    let tool = open(folder.path(), Role::Tool).await;
    tool.add_account("demo", at(0)).await.unwrap();
    server.close().await;
    open(folder.path(), Role::Server)
        .await
        .account("demo")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_make_the_same_database_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let opened = join_all((0..8).map(|_| open(folder.path(), Role::Tool))).await;
    for (n, accounts) in opened.iter().enumerate() {
        accounts.add_account(&format!("a{n}"), at(0)).await.unwrap();
    }
    assert_eq!(opened[0].accounts().await.unwrap().len(), 8);
}

#[tokio::test]
async fn what_cannot_be_opened_is_said() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), Role::Tool).await.close().await;
    let mut raw = raw(folder.path()).await;
    raw.execute("INSERT INTO migration (version, applied_at) VALUES (1000, 0)")
        .await
        .unwrap();
    for role in [Role::Server, Role::Tool] {
        let newer = Accounts::open(options(folder.path(), role), at(0)).await;
        assert!(
            matches!(newer, Err(OpenError::Newer { found: 1000, .. })),
            "{newer:?}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(database(folder.path()), "x".repeat(5_000)).unwrap();
    let garbage = Accounts::open(options(folder.path(), Role::Server), at(0)).await;
    assert!(matches!(garbage, Err(OpenError::Store(_))), "{garbage:?}");

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(database(folder.path())).unwrap();
    let a_folder = Accounts::open(options(folder.path(), Role::Server), at(0)).await;
    assert!(
        matches!(a_folder, Err(OpenError::File { .. })),
        "{a_folder:?}"
    );
}

#[tokio::test]
async fn closing_writes_what_waits() {
    let fixture = Fixture::with(1_000).await;
    let settled = fixture.held("settled", 100).await.unwrap();
    let dropped = fixture.held("dropped", 100).await.unwrap();
    let later = fixture.held("later", 100).await.unwrap();
    let pending = fixture.accounts.hold(fixture.hold("pending", 100)).unwrap();
    drop(dropped);
    let (settled, ()) = tokio::join!(
        fixture.accounts.settle(settled, success(tokens(10, 0))),
        fixture.accounts.close()
    );
    assert_eq!(settled.unwrap(), nanos(10));
    let pending = pending.durable().await.unwrap();

    let refused = fixture.held("refused", 1).await;
    assert!(matches!(refused, Err(HoldError::Store(_))), "{refused:?}");
    let failed = fixture
        .accounts
        .settle(later, success(tokens(1, 0)))
        .await
        .unwrap_err();
    assert_eq!(failed.hold.request(), "later");
    assert!(fixture.accounts.accounts().await.is_err());
    assert!(
        !fixture.folder.path().join("weir.db-wal").exists(),
        "the log is in the database"
    );
    drop((pending, failed));

    let tool = open(fixture.folder.path(), Role::Tool).await;
    let account = tool.account("demo").await.unwrap();
    assert_eq!((account.posted, account.held), (nanos(990), nanos(200)));
    assert_eq!(tool.verify().await.unwrap(), Vec::<String>::new());
}

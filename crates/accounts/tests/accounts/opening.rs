//! Opening and closing.

use futures::future::join_all;
use weir_accounts::{Accounts, HoldError, OpenError, Role};

use crate::fixture::{Fixture, at, location, nanos, open, options, raw, success, tokens};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_make_the_same_database_at_once() {
    let folder = tempfile::tempdir().unwrap();
    location(folder.path()).await;
    let opened = join_all((0..8).map(|_| open(folder.path(), Role::Tool))).await;
    for (n, accounts) in opened.iter().enumerate() {
        accounts.add_account(&format!("a{n}"), at(0)).await.unwrap();
    }
    assert_eq!(opened[0].accounts().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path(), Role::Tool).await.close().await;
    let mut raw = raw(folder.path()).await;
    raw.execute("INSERT INTO migration (version, applied_at) VALUES (1000, 0)")
        .await
        .unwrap();
    for role in [Role::Server, Role::Tool] {
        let newer = Accounts::open(options(folder.path(), role).await, at(0)).await;
        assert!(
            matches!(newer, Err(OpenError::Newer { found: 1000, .. })),
            "{newer:?}"
        );
    }
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

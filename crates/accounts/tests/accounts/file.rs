//! What is about SQLite's file.

use std::os::unix::fs::PermissionsExt;

use weir_accounts::{Accounts, OpenError, Role};

use crate::fixture::{at, database, open, options};

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
async fn two_servers_do_not_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(folder.path(), Role::Server).await;
    let second = Accounts::open(options(folder.path(), Role::Server).await, at(0)).await;
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

#[tokio::test]
async fn what_cannot_be_opened_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(database(folder.path()), "x".repeat(5_000)).unwrap();
    let garbage = Accounts::open(options(folder.path(), Role::Server).await, at(0)).await;
    assert!(matches!(garbage, Err(OpenError::Store(_))), "{garbage:?}");

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(database(folder.path())).unwrap();
    let a_folder = Accounts::open(options(folder.path(), Role::Server).await, at(0)).await;
    assert!(
        matches!(a_folder, Err(OpenError::File { .. })),
        "{a_folder:?}"
    );
}

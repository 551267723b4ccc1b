//! Reading beside a server, on a disk that can't be written, from a backup.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weir_accounts::{Accounts, OpenError, Options, Role};

use crate::fixture::{Fixture, at, database, open, success, tokens};

async fn reader(folder: &Path) -> Result<Accounts, OpenError> {
    Accounts::open(Options::new(database(folder), Role::Reader), at(0)).await
}

async fn check(reader: &Accounts, requests: usize) {
    let account = reader.account("demo").await.unwrap();
    let usage = reader.usage(&account.id, 100).await.unwrap();
    assert_eq!(usage.len(), requests);
    assert_eq!(reader.verify().await.unwrap(), [""; 0]);
    assert!(reader.add_account("no", at(0)).await.is_err());
    reader.close().await;
}

async fn used(requests: usize) -> Fixture {
    let fixture = Fixture::with(1_000).await;
    for number in 0..requests {
        let hold = fixture.held(&format!("r{number}"), 10).await.unwrap();
        let settled = fixture.accounts.settle(hold, success(tokens(1, 0)));
        settled.await.unwrap();
    }
    fixture
}

#[tokio::test]
async fn beside_a_server() {
    let fixture = used(2).await;
    check(&reader(fixture.folder.path()).await.unwrap(), 2).await;
    fixture.held("more", 10).await.unwrap();
}

/// Backups on a read-only disk: a copy of a running server's files, and one of a stopped server's.
#[tokio::test]
async fn a_backup_on_a_disk_that_cannot_be_written() {
    for (ended, requests) in [(false, 3), (true, 4)] {
        let fixture = used(requests).await;
        if ended {
            fixture.accounts.close().await;
        }
        let backup = tempfile::tempdir().unwrap();
        let named = backup.path().join("of 100%, #1?");
        std::fs::create_dir(&named).unwrap();
        for file in std::fs::read_dir(fixture.folder.path()).unwrap() {
            let file = file.unwrap();
            // The index is shared memory of the server's, not part of a backup.
            if !file.file_name().to_str().unwrap().ends_with("-shm") {
                std::fs::copy(file.path(), named.join(file.file_name())).unwrap();
            }
        }
        let before = names(&named);
        let read_only = |mode| std::fs::set_permissions(&named, Permissions::from_mode(mode));
        read_only(0o500).unwrap();
        check(&reader(&named).await.unwrap(), requests).await;
        read_only(0o700).unwrap();
        assert!(
            is_root() || names(&named) == before,
            "nothing is left there"
        );
    }
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Whether the tests run as root, who may write everywhere: then permissions prove nothing.
fn is_root() -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o500)).unwrap();
    std::fs::write(folder.path().join("probe"), "").is_ok()
}

#[tokio::test]
async fn an_older_schema_is_not_changed() {
    let fixture = used(0).await;
    fixture.accounts.close().await;
    let raw = rusqlite::Connection::open(database(fixture.folder.path())).unwrap();
    raw.execute_batch("DELETE FROM migration WHERE version = (SELECT MAX(version) FROM migration)")
        .unwrap();
    let older = reader(fixture.folder.path()).await;
    assert!(matches!(older, Err(OpenError::Older { .. })), "{older:?}");
}

#[tokio::test]
async fn a_missing_database_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let missing = reader(folder.path()).await;
    assert!(matches!(missing, Err(OpenError::Missing(_))), "{missing:?}");
    assert_eq!(names(folder.path()).len(), 0);
    open(folder.path(), Role::Tool).await.close().await;
    reader(folder.path()).await.unwrap();
}

//! SQLite's file: its permissions, its lock, and what happens when it is lost or moved.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use weir_accounts::{Accounts, AdminError, OpenError, Options, Role, Trouble};

use crate::fixture::{at, database, open, options};

#[tokio::test]
async fn only_its_owner_can_read_the_database() {
    let folder = tempfile::tempdir().unwrap();
    // Created by another program, with wider permissions.
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
    assert_eq!(files, 4, "the database, its log and index, and its id");
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

/// A second server is refused, whatever name it finds the file by, and whatever is removed beside the file.
#[tokio::test]
async fn the_lock_is_on_the_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(folder.path(), Role::Server).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let linked = elsewhere.path().join("linked.db");
    symlink(database(folder.path()), &linked).unwrap();
    let linked_folder = elsewhere.path().join("folder");
    symlink(folder.path(), &linked_folder).unwrap();
    for path in [
        linked.clone(),
        database(&linked_folder),
        folder
            .path()
            .join("../")
            .join(folder.path())
            .join("weir.db"),
    ] {
        let second = Accounts::open(Options::new(path.clone(), Role::Server), at(0)).await;
        assert!(
            matches!(second, Err(OpenError::InUse(_))),
            "{path:?}: {second:?}"
        );
    }
    // A tool finds the log beside the file, not beside the link.
    let tool = Accounts::open(Options::new(linked, Role::Tool), at(0))
        .await
        .unwrap();
    tool.add_account("demo", at(0)).await.unwrap();
    server.account("demo").await.unwrap();

    let hard = elsewhere.path().join("hard.db");
    std::fs::hard_link(database(folder.path()), &hard).unwrap();
    for role in [Role::Server, Role::Tool] {
        let second = Accounts::open(Options::new(hard.clone(), role), at(0)).await;
        assert!(
            matches!(second, Err(OpenError::HardLinked(_))),
            "{second:?}"
        );
    }
    // A reader would see an old state: the log is beside the other name.
    let reader = Accounts::open(Options::new(hard.clone(), Role::Reader), at(0)).await;
    assert!(matches!(reader, Err(OpenError::OtherName(_))), "{reader:?}");
    std::fs::remove_file(hard).unwrap();
    open(folder.path(), Role::Tool).await;
}

/// A database that was there once is not created anew, whatever is left of it.
#[tokio::test]
async fn a_lost_database_is_not_made_anew() {
    type Act = fn(&Path);
    let lose: [(&str, Act); 9] = [
        ("removed", |path| std::fs::remove_file(path).unwrap()),
        ("emptied", |path| std::fs::write(path, "").unwrap()),
        ("emptied, without its log", |path| {
            std::fs::write(path, "").unwrap();
            std::fs::remove_file(path.with_extension("db-wal")).unwrap();
        }),
        ("removed, without its log and index", |path| {
            for name in ["weir.db", "weir.db-wal", "weir.db-shm"] {
                std::fs::remove_file(path.with_file_name(name)).unwrap();
            }
        }),
        ("removed, without its id", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::remove_file(path.with_extension("db-id")).unwrap();
        }),
        ("behind a link that leads nowhere", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("/nowhere/weir.db", path).unwrap();
        }),
        ("made anew by SQLite, and empty", |path| {
            replace(path, "PRAGMA user_version = 1; VACUUM");
        }),
        ("made anew by SQLite, with another's table", |path| {
            replace(path, "CREATE TABLE x (a)");
        }),
        (
            "made anew by SQLite, with only unsettled requests beside it",
            |path| {
                replace(path, "VACUUM");
                std::fs::rename(
                    path.with_extension("db-id"),
                    path.with_file_name("unsettled-0"),
                )
                .unwrap();
            },
        ),
    ];
    for (how, lose) in lose {
        let folder = tempfile::tempdir().unwrap();
        let server = open(folder.path(), Role::Server).await;
        server.add_account("demo", at(0)).await.unwrap();
        // A second connection keeps the log on the disk, as after kill -9.
        let raw = rusqlite::Connection::open(database(folder.path())).unwrap();
        raw.query_row("SELECT COUNT(*) FROM account", [], |_| Ok(()))
            .unwrap();
        server.close().await;
        std::fs::write(folder.path().join("weir.db-wal"), "what was not moved yet").unwrap();
        lose(&database(folder.path()));
        for role in [Role::Server, Role::Tool, Role::Reader] {
            let opened = Accounts::open(options(folder.path(), role).await, at(0)).await;
            let refused = matches!(opened, Err(OpenError::Lost { .. } | OpenError::Missing(_)));
            assert!(refused, "{how}, {role:?}: {opened:?}");
        }
    }
}

/// Puts another database in the place of this one.
fn replace(path: &Path, sql: &str) {
    for name in ["weir.db", "weir.db-wal", "weir.db-shm"] {
        std::fs::remove_file(path.with_file_name(name)).unwrap();
    }
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch(sql).unwrap();
}

/// The message says how to start anew on purpose, and that works.
#[tokio::test]
async fn one_can_start_anew_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(folder.path(), Role::Server).await;
    server.add_account("demo", at(0)).await.unwrap();
    server.close().await;
    std::fs::remove_file(database(folder.path())).unwrap();
    // As a server leaves it that keeps a place for unsettled requests.
    std::fs::write(folder.path().join("unsettled-0"), "weir").unwrap();
    let refused = Accounts::open(options(folder.path(), Role::Server).await, at(0)).await;
    let said = refused.as_ref().unwrap_err().to_string();
    let Err(OpenError::Lost { traces, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(traces.len(), 2);
    for trace in traces {
        assert!(said.contains(trace.to_str().unwrap()), "{said}");
        std::fs::remove_file(trace).unwrap();
    }
    let anew = open(folder.path(), Role::Server).await;
    assert_eq!(anew.accounts().await.unwrap(), []);
}

/// A server whose files are moved, removed or replaced reports it at the next call, and goes on when they are back.
#[tokio::test]
async fn files_that_are_not_in_their_place_are_not_used() {
    type Act = fn(&Path);
    let acts: [(&str, Act, Option<Act>); 5] = [
        (
            "the folder is moved",
            |path| std::fs::rename(folder_of(path), moved(path)).unwrap(),
            Some(|path| std::fs::rename(moved(path), folder_of(path)).unwrap()),
        ),
        (
            "the folder is replaced",
            |path| {
                std::fs::rename(folder_of(path), moved(path)).unwrap();
                std::fs::create_dir(folder_of(path)).unwrap();
                std::fs::copy(moved(path).join("weir.db"), path).unwrap();
            },
            Some(|path| {
                std::fs::remove_dir_all(folder_of(path)).unwrap();
                std::fs::rename(moved(path), folder_of(path)).unwrap();
            }),
        ),
        (
            "the folder is removed",
            |path| std::fs::remove_dir_all(folder_of(path)).unwrap(),
            None,
        ),
        (
            "the file is replaced by a copy",
            |path| {
                std::fs::copy(path, path.with_extension("copy")).unwrap();
                std::fs::rename(path, path.with_extension("old")).unwrap();
                std::fs::rename(path.with_extension("copy"), path).unwrap();
            },
            Some(|path| std::fs::rename(path.with_extension("old"), path).unwrap()),
        ),
        (
            "the log is removed",
            |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap(),
            None,
        ),
    ];
    for (what, act, undo) in acts {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let server = open(&folder, Role::Server).await;
        server.add_account("before", at(0)).await.unwrap();
        server.check().await.unwrap();
        act(&database(&folder));
        let troubles = [
            server
                .add_account("lost", at(1))
                .await
                .map(drop)
                .map_err(trouble),
            server
                .accounts()
                .await
                .map(drop)
                .map_err(|error| error.trouble()),
            server.check().await.map_err(|error| error.trouble()),
        ];
        assert_eq!(troubles, [Err(Trouble::Moved); 3], "{what}");
        if let Some(undo) = undo {
            undo(&database(&folder));
            server.add_account("after", at(2)).await.unwrap();
            assert_eq!(server.accounts().await.unwrap().len(), 2, "{what}");
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

fn moved(path: &Path) -> PathBuf {
    folder_of(path).with_file_name("moved")
}

fn trouble(error: AdminError) -> Trouble {
    match error {
        AdminError::Store(error) => error.trouble(),
        other => panic!("{other:?}"),
    }
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

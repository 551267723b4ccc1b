//! A PostgreSQL cluster for a run of the tests, and a database of its own for each of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// The folder of the cluster, which all tests of a run share. It is stopped when nextest ends, or without nextest when
/// this process ends.
static CLUSTER: LazyLock<PathBuf> = LazyLock::new(|| {
    let (run, watched) = match std::env::var("NEXTEST_RUN_ID") {
        Ok(run) => (run, std::os::unix::process::parent_id()),
        Err(_) => (std::process::id().to_string(), std::process::id()),
    };
    let folder = std::env::temp_dir().join(format!("weir-postgres-{run}"));
    script(&folder, &watched.to_string());
    folder
});

/// Runs `test-postgres.sh`, which starts a cluster in a folder for as long as a process lives, stops it or starts it
/// again.
pub(crate) fn script(folder: &Path, what: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-postgres.sh");
    let done = Command::new(script).arg(folder).arg(what).status();
    assert!(
        done.unwrap().success(),
        "there is no PostgreSQL to test with"
    );
}

/// The folder with the cluster's socket.
pub(crate) fn folder() -> &'static Path {
    &CLUSTER
}

pub(crate) fn url(database: &str) -> String {
    let socket = folder().to_str().unwrap().replace('/', "%2F");
    format!("postgres://weir@{socket}/{database}")
}

/// Creates an empty database, and returns its address.
pub(crate) async fn create() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("t{}_{made}", std::process::id());
    let mut connection = PgConnection::connect(&url("postgres")).await.unwrap();
    let create = format!("CREATE DATABASE {name}");
    connection.execute(AssertSqlSafe(create)).await.unwrap();
    connection.close().await.unwrap();
    url(&name)
}

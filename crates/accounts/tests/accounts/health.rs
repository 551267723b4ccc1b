//! Readiness where small writes fit and holds don't.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time;
use weir_accounts::{HoldError, Trouble};

use crate::fixture::{Fixture, raw};

/// Set in the process that limits the size of its files.
const LIMITED: &str = "WEIR_TEST_LIMITED";

/// The system kills a process that writes beyond its limit, unless it ignores the signal.
#[test]
fn a_hold_that_cannot_be_written_makes_it_not_ready() {
    let script = r#"trap '' XFSZ; exec "$0" --exact health::where_files_cannot_grow --nocapture"#;
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program).env(LIMITED, "");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{output:?}"
    );
}

#[tokio::test]
async fn where_files_cannot_grow() {
    if std::env::var_os(LIMITED).is_none() {
        return;
    }
    let fixture = Fixture::with(1_000_000).await;
    let accounts = &fixture.accounts;
    let usual = getrlimit(Resource::Fsize);
    let log = fixture.folder.path().join("weir.db-wal");
    let limit = |bytes| {
        let current = Some(bytes);
        setrlimit(Resource::Fsize, Rlimit { current, ..usual }).unwrap();
    };
    let mut raw = raw(fixture.folder.path()).await;
    let before = size(&log);
    fixture.held("first", 10).await.unwrap();
    let of_a_hold = size(&log) - before;
    let usual_size = 32 * 1024..128 * 1024;
    assert!(usual_size.contains(&of_a_hold), "{of_a_hold} bytes");

    // A few pages fit, a hold doesn't.
    limit(size(&log) + 20 * 1024);
    let refused = fixture.held("second", 10).await;
    assert!(matches!(refused, Err(HoldError::Store(_))), "{refused:?}");
    for _ in 0..3 {
        let checked = accounts.check().await.map_err(|error| error.trouble());
        assert_eq!(checked, Err(Trouble::Other));
        let small = "UPDATE clock SET probed = probed + 1";
        raw.execute(small).await.unwrap();
        a_while_later().await;
    }
    assert!(fixture.held("third", 10).await.is_err());

    // It becomes ready without any request.
    setrlimit(Resource::Fsize, usual).unwrap();
    a_while_later().await;
    accounts.check().await.unwrap();
    fixture.held("fourth", 10).await.unwrap();
    accounts.check().await.unwrap();
    fixture.assert_books().await;
}

fn size(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

/// Outcomes of transactions are no longer fresh.
async fn a_while_later() {
    time::pause();
    time::advance(Duration::from_secs(2)).await;
    time::resume();
}

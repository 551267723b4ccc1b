//! Connections break, and the database is gone for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use weir_accounts::{Accounts, HoldError, Options, Role};

use crate::cluster;
use crate::fixture::{Fixture, at, caller, nanos, raw, success, tokens};

/// The server ends every connection, and no caller notices.
#[tokio::test]
async fn broken_connections_are_replaced() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 100).await.unwrap();
    fixture.account().await;
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'weir'";
    raw(fixture.folder.path())
        .await
        .execute(others)
        .await
        .unwrap();
    fixture.accounts.ping().await.unwrap();
    let charged = fixture.accounts.settle(hold, success(tokens(10, 0))).await;
    assert_eq!(charged.unwrap(), nanos(10));
    assert_eq!(fixture.balance().await, (990, 0));
    fixture.assert_books().await;
}

/// The modes of a [`Proxy`].
const PASS: u8 = 0;
/// The next COMMIT is passed on; its answer isn't, and the connection is closed.
const CUT_ONE: u8 = 1;
/// The same, and then all connections are refused.
const CUT_ALL: u8 = 2;
const REFUSE: u8 = 3;

/// A proxy between weir and the database.
struct Proxy {
    folder: TempDir,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// A proxy with a socket of its own, in front of the database's.
    fn before(socket: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let mode = Arc::new(AtomicU8::new(PASS));
        let seen = Arc::clone(&mode);
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if seen.load(Ordering::SeqCst) != REFUSE {
                    let server = UnixStream::connect(&socket).await.unwrap();
                    tokio::spawn(carry(client, server, Arc::clone(&seen)));
                }
            }
        });
        Proxy { folder, mode }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

/// Carries bytes both ways, until either side ends or the mode says so.
async fn carry(mut client: UnixStream, mut server: UnixStream, mode: Arc<AtomicU8>) {
    let (mut up, mut down) = ([0; 65536], [0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let commits = up[..length].windows(6).any(|word| word == b"COMMIT");
                server.write_all(&up[..length]).await.unwrap();
                let now = mode.load(Ordering::SeqCst);
                if commits && now != PASS {
                    mode.store(if now == CUT_ONE { PASS } else { REFUSE }, Ordering::SeqCst);
                    // The server's answer shows that the transaction is committed.
                    assert!(server.read(&mut down).await.unwrap() > 0);
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}

/// A server whose connections go through a proxy, beside the fixture's.
async fn proxied() -> (Fixture, Proxy, Accounts) {
    let fixture = Fixture::with(1_000).await;
    let url = std::fs::read_to_string(fixture.folder.path().join("address")).unwrap();
    let (_, name) = url.rsplit_once('/').unwrap();
    let proxy = Proxy::before(cluster::folder().join(".s.PGSQL.5432"));
    let socket = proxy.folder.path().to_str().unwrap().replace('/', "%2F");
    let url = format!("postgres://weir@{socket}/{name}");
    let location: weir_accounts::PostgresUrl = url.parse().unwrap();
    let options = Options::new(location, Role::Server);
    let accounts = Accounts::open(options, at(0)).await.unwrap();
    (fixture, proxy, accounts)
}

/// A transaction whose COMMIT got no answer runs again on another connection, and is done once.
#[tokio::test]
async fn a_commit_without_an_answer_is_done_once() {
    let (fixture, proxy, accounts) = proxied().await;
    let hold = fixture.hold("r1", 300);
    proxy.set(CUT_ONE);
    let mut hold = accounts.hold(hold).unwrap().durable().await.unwrap();
    assert_eq!(fixture.account().await.held, nanos(300));
    proxy.set(CUT_ONE);
    accounts.extend(&mut hold, nanos(500), at(2)).await.unwrap();
    assert_eq!(
        (hold.amount(), fixture.account().await.held),
        (nanos(800), nanos(800))
    );
    proxy.set(CUT_ONE);
    let credited = accounts
        .credit(&fixture.caller.account, nanos(50), "once", "", at(2))
        .await;
    assert_eq!(credited.unwrap().posted, nanos(1_050));
    proxy.set(CUT_ONE);
    let charged = accounts.settle(hold, success(tokens(10, 0))).await;
    assert_eq!(charged.unwrap(), nanos(10));
    assert_eq!(fixture.balance().await, (1_040, 0));
    fixture.assert_books().await;
}

/// If it can't run again, a hold that may have been made is released as soon as that works.
#[tokio::test]
async fn a_hold_that_nobody_got_is_released() {
    let (fixture, proxy, accounts) = proxied().await;
    proxy.set(CUT_ALL);
    let doubtful = accounts.hold(fixture.hold("r1", 300)).unwrap();
    let refused = doubtful.durable().await;
    assert!(matches!(refused, Err(HoldError::Store(_))), "{refused:?}");
    assert_eq!(fixture.account().await.held, nanos(300), "it was made");
    proxy.set(PASS);
    accounts.expire(at(2)).await.unwrap();
    assert_eq!(fixture.account().await.held, nanos(0));
    assert_eq!(fixture.balance().await, (1_000, 0));
    fixture.assert_books().await;
}

/// A PostgreSQL that can be stopped and started.
struct Server(TempDir);

impl Server {
    fn start() -> Self {
        let server = Server(tempfile::tempdir().unwrap());
        // PostgreSQL may run as another user than the test.
        allow_others(server.0.path());
        server.run(&std::process::id().to_string());
        server
    }

    fn run(&self, what: &str) {
        cluster::script(&self.folder(), what);
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("cluster")
    }
}

/// During an outage calls fail within a bounded time; nothing is lost, and afterwards everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_goes_and_comes_back() {
    let server = Server::start();
    let socket = server.folder().to_str().unwrap().replace('/', "%2F");
    let url: weir_accounts::PostgresUrl = format!("postgres://weir@{socket}/postgres")
        .parse()
        .unwrap();
    let options = Options {
        timeout: Duration::from_secs(2),
        ..Options::new(url, Role::Server)
    };
    let accounts = Accounts::open(options, at(0)).await.unwrap();
    let caller = caller(&accounts, 1_000).await;
    let fixture = Fixture {
        folder: tempfile::tempdir().unwrap(),
        accounts,
        caller,
    };
    let key = fixture
        .accounts
        .add_key(&fixture.caller.account, None, at(0))
        .await
        .unwrap();
    let settled = fixture.held("settled", 100).await.unwrap();
    let dropped = fixture.held("dropped", 100).await.unwrap();

    server.run("stop");
    let began = Instant::now();
    let refused = fixture.held("refused", 100).await;
    assert!(matches!(refused, Err(HoldError::Store(_))), "{refused:?}");
    let unknown = fixture
        .accounts
        .authenticate(key.secret.expose(), at(1))
        .await;
    assert!(
        matches!(unknown, Err(weir_accounts::KeyError::Store(_))),
        "{unknown:?}"
    );
    assert!(fixture.accounts.ping().await.is_err());
    let failed = fixture
        .accounts
        .settle(settled, success(tokens(10, 0)))
        .await
        .unwrap_err();
    fixture.accounts.checkpoint(&dropped, tokens(20, 0), at(2));
    drop(dropped);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );

    server.run("start");
    let charged = fixture
        .accounts
        .settle(failed.hold, success(tokens(10, 0)))
        .await;
    assert_eq!(charged.unwrap(), nanos(10));
    assert_eq!(fixture.balance().await, (1_000 - 10 - 20, 0));
    fixture
        .accounts
        .authenticate(key.secret.expose(), at(1))
        .await
        .unwrap();
    fixture.assert_books().await;
    fixture.accounts.close().await;
}

fn allow_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, everybody).unwrap();
}

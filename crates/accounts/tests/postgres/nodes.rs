//! Several processes serve from one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use weir_accounts::{Accounts, HoldError, Options, Recovered, Role, Uptime};

use crate::fixture::{Fixture, at, lose, nanos, open, options, success, tokens};

/// Another node, which holds for the fixture's account.
async fn node(fixture: &Fixture) -> Fixture {
    Fixture {
        folder: tempfile::tempdir().unwrap(),
        accounts: open(fixture.folder.path(), Role::Server).await,
        caller: fixture.caller.clone(),
    }
}

/// Nodes of one database, whose time passes when the test says so.
struct Cluster {
    first: Fixture,
    uptime: Uptime,
    /// The time that has passed, in milliseconds.
    passed: Arc<AtomicU64>,
}

impl Cluster {
    async fn new() -> Self {
        let passed = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&passed);
        let uptime = Uptime::from_fn(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        Cluster {
            first: Fixture::with(1_000).await,
            uptime,
            passed,
        }
    }

    async fn node(&self) -> Fixture {
        let options = Options {
            uptime: self.uptime.clone(),
            ..options(self.first.folder.path(), Role::Server).await
        };
        Fixture {
            folder: tempfile::tempdir().unwrap(),
            accounts: Accounts::open(options, at(0)).await.unwrap(),
            caller: self.first.caller.clone(),
        }
    }

    /// Lets this much time pass while these nodes are active. Returns what they recovered.
    async fn live(&self, nodes: &[&Fixture], seconds: u64) -> Recovered {
        let mut found = Recovered::default();
        for _ in 0..seconds {
            self.passed.fetch_add(1_000, Ordering::SeqCst);
            for node in nodes {
                let ended = node.accounts.expire(at(9)).await.unwrap();
                found.settled += ended.settled;
                found.released += ended.released;
                found.charged = found.charged.checked_add(ended.charged).unwrap();
            }
        }
        found
    }
}

#[tokio::test]
async fn only_holds_of_the_dead_are_ended() {
    let cluster = Cluster::new().await;
    let (alive, dead, third) = (
        cluster.node().await,
        cluster.node().await,
        cluster.node().await,
    );
    let own = alive.held("own", 100).await.unwrap();
    let silent = dead.held("silent", 100).await.unwrap();
    let delivered = dead.held("delivered", 100).await.unwrap();
    dead.accounts.checkpoint(&delivered, tokens(10, 0), at(2));
    dead.written().await;
    for asked in [&alive, &third] {
        let ended = asked.accounts.recover(at(100_000_000)).await.unwrap();
        assert_eq!(ended, Recovered::default(), "all are alive");
    }
    let all = [&alive, &dead, &third];
    assert_eq!(cluster.live(&all, 100).await, Recovered::default());

    // `dead` goes silent. Its lease is over before another node ends its holds.
    let living = [&alive, &third];
    assert_eq!(cluster.live(&living, 26).await, Recovered::default());
    assert!(silent.is_leased() && own.is_leased());
    assert_eq!(cluster.live(&living, 3).await, Recovered::default());
    assert!(!silent.is_leased() && own.is_leased());
    let expected = Recovered {
        settled: 1,
        released: 1,
        charged: nanos(10),
    };
    assert_eq!(cluster.live(&living, 8).await, expected);

    // `dead` wakes up: its holds have ended, and only what it delivered beyond their checkpoints is charged. It goes on
    // under another name.
    let mut silent = silent;
    let extended = dead.accounts.extend(&mut silent, nanos(1), at(10)).await;
    assert!(matches!(extended, Err(HoldError::Ended)), "{extended:?}");
    assert!(!silent.is_leased());
    for (hold, counts, charged) in [(silent, tokens(90, 0), 90), (delivered, tokens(10, 0), 10)] {
        let settled = dead.accounts.settle(hold, success(counts)).await;
        assert_eq!(settled.unwrap(), nanos(charged));
    }
    let again = dead.held("again", 100).await.unwrap();
    assert!(again.is_leased());
    assert_eq!(cluster.live(&all, 100).await, Recovered::default());
    let charged = dead.accounts.settle(again, success(tokens(30, 0))).await;
    assert_eq!(charged.unwrap(), nanos(30));
    let charged = alive.accounts.settle(own, success(tokens(20, 0))).await;
    assert_eq!(charged.unwrap(), nanos(20));
    assert_eq!(alive.balance().await, (850, 0));
    alive.assert_books().await;
}

/// A node that could not look for some time, as the database was out of reach, takes no other node for dead: neither
/// after an outage shorter than the silence, nor after a longer one.
#[tokio::test]
async fn nobody_is_judged_after_a_gap() {
    let cluster = Cluster::new().await;
    let (one, other) = (cluster.node().await, cluster.node().await);
    let hold = one.held("r1", 100).await.unwrap();
    assert_eq!(
        cluster.live(&[&one, &other], 60).await,
        Recovered::default()
    );
    for outage in [16, 20, 25, 29, 30, 31, 45, 3_600] {
        cluster.passed.fetch_add(outage * 1_000, Ordering::SeqCst);
        // The other node is the first to come back, by most of a lease's length.
        let ended = cluster.live(&[&other], 24).await;
        assert_eq!(ended, Recovered::default(), "{outage} s");
        let ended = cluster.live(&[&one, &other], 10).await;
        assert_eq!(ended, Recovered::default(), "{outage} s");
        assert!(hold.is_leased(), "{outage} s");
    }
}

/// The holds of a node that is closed in order are ended at once.
#[tokio::test]
async fn who_leaves_is_not_alive() {
    let stays = Fixture::with(1_000).await;
    let leaves = node(&stays).await;
    let open = leaves.held("open", 100).await.unwrap();
    leaves.accounts.close().await;
    assert!(!open.is_leased());
    let ended = stays.accounts.expire(at(9)).await.unwrap();
    assert_eq!((ended.settled, ended.released), (0, 1));
    drop(open);
}

/// In real time, leases are renewed by themselves.
#[tokio::test]
async fn who_lives_keeps_its_lease() {
    let fixture = Fixture::with(1_000).await;
    let quick = || async {
        let options = Options {
            node_silence: Duration::from_millis(1_200),
            ..options(fixture.folder.path(), Role::Server).await
        };
        Accounts::open(options, at(0)).await.unwrap()
    };
    let (first, second) = (quick().await, quick().await);
    let held = first.hold(fixture.hold("r1", 100)).unwrap().durable().await;
    let hold = held.unwrap();
    // The other node looks for dead ones again and again, for longer than the silence.
    let watched = tokio::time::Instant::now();
    while watched.elapsed() < Duration::from_millis(2_500) {
        let ended = second.expire(at(9)).await.unwrap();
        assert_eq!(ended, Recovered::default());
        assert!(hold.wait_leased().await);
    }
    lose(fixture.folder.path()).await;
    assert_eq!(second.expire(at(9)).await.unwrap().released, 1);
    drop(hold);
}

/// Batches of three nodes touch the same accounts in different orders, on more than one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_do_not_block_each_other() {
    const ACCOUNTS: usize = 8;
    let first = Fixture::with(1_000_000).await;
    let mut callers = vec![first.caller.clone()];
    for n in 1..ACCOUNTS {
        let account = first.accounts.add_account(&format!("a{n}"), at(0)).await;
        let account = account.unwrap().id;
        let credit = nanos(1_000_000);
        let paid = format!("k{n}");
        let paid = first.accounts.credit(&account, credit, &paid, "", at(0));
        paid.await.unwrap();
        let key = first.accounts.add_key(&account, None, at(0)).await.unwrap();
        let caller = first
            .accounts
            .authenticate(key.secret.expose(), at(0))
            .await;
        callers.push(caller.unwrap());
    }
    let nodes = [node(&first).await, node(&first).await, node(&first).await];
    let work = nodes.iter().enumerate().map(async |(n, node)| {
        let requests = (0..120).map(async |request| {
            let mut new = node.hold(&format!("n{n} r{request}"), 100);
            // Each node goes through the accounts in a direction of its own.
            let at_account = if n == 1 {
                ACCOUNTS - 1 - request % ACCOUNTS
            } else {
                request % ACCOUNTS
            };
            new.caller = callers[at_account].clone();
            let hold = node.accounts.hold(new).unwrap().durable().await.unwrap();
            let charged = node.accounts.settle(hold, success(tokens(7, 0))).await;
            assert_eq!(charged.unwrap(), nanos(7));
        });
        join_all(requests).await;
    });
    join_all(work).await;
    let posted: i64 = first
        .accounts
        .accounts()
        .await
        .unwrap()
        .iter()
        .map(|a| a.posted.get())
        .sum();
    assert_eq!(posted, 8_000_000 - 3 * 120 * 7);
    first.assert_books().await;
}

/// 1,000 holds at once on three nodes, and money for 137.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_never_overdraw() {
    let first = Fixture::with(100 * 137 + 99).await;
    let nodes = [node(&first).await, node(&first).await, node(&first).await];
    let pending: Vec<_> = (0..1_000)
        .map(|n| {
            let node = &nodes[n % nodes.len()];
            node.accounts
                .hold(node.hold(&format!("r{n}"), 100))
                .unwrap()
        })
        .collect();
    let answers = join_all(pending.into_iter().map(|pending| pending.durable())).await;
    let holds: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    assert!((136..=137).contains(&holds.len()), "{}", holds.len());
    assert_eq!(
        first.account().await.held,
        nanos(100 * i64::try_from(holds.len()).unwrap())
    );
    drop(holds);
    for node in &nodes {
        node.written().await;
    }
    assert_eq!(first.balance().await, (13_799, 0));
    first.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_may_make_the_same_database_at_once() {
    let folder = tempfile::tempdir().unwrap();
    crate::fixture::location(folder.path()).await;
    let opened = join_all((0..4).map(|_| open(folder.path(), Role::Server))).await;
    for (n, accounts) in opened.iter().enumerate() {
        accounts.add_account(&format!("a{n}"), at(0)).await.unwrap();
    }
    assert_eq!(opened[0].accounts().await.unwrap().len(), 4);
}

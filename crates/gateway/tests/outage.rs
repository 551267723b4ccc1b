//! The database goes away in the middle of a generation, and comes back: a real PostgreSQL, stopped and
//! started.
#![expect(clippy::unwrap_used, reason = "a test fails where it can't go on")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use weir_accounts::{
    Accounts, Caller, Nanos, Options, Outcome, PostgresUrl, Price, Role, SpillOptions, Uptime,
};
use weir_engine::request::{Input, OutputLimit, Overflow, Prompt};
use weir_engine::{Event, Request, Sampling, Usage};
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Delivery, Gateway, Generation, Job, Offer, Refusal};
use weir_inference::local::LocalEngine;
use weir_inference::sim::{self, Gate, SimModel, SimOptions};

fn noon() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn postgres(folder: &Path, what: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-postgres.sh");
    let done = Command::new(script).arg(folder).arg(what).status();
    assert!(done.unwrap().success(), "no PostgreSQL to test with");
}

fn job(id: &str) -> Job {
    let prompts = vec![Prompt::Text("hello".to_owned())];
    let request = Request {
        sampling: Sampling::default().or_seed(1),
        output: OutputLimit {
            tokens: Some(20),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(prompts))
    };
    Job {
        request_id: id.to_owned(),
        model: "m".to_owned(),
        request,
        delivery: Delivery::Stream,
    }
}

/// A PostgreSQL server, a gateway on it with a simulated engine that waits at a gate, and a caller with a balance of
/// one dollar.
struct Outage {
    folder: TempDir,
    options: Options,
    accounts: Accounts,
    gateway: Gateway,
    caller: Caller,
    gate: Gate,
    /// The monotonic time that leases are measured by, in milliseconds.
    uptime: Arc<AtomicU64>,
}

const PRICE: Price = Price {
    input: 10_000,
    output: 20_000,
    cached: None,
};

impl Outage {
    async fn new(room: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The server runs as a user other than the test's.
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).unwrap();
        let cluster = folder.path().join("cluster");
        postgres(&cluster, &std::process::id().to_string());
        let socket = cluster.to_str().unwrap().replace('/', "%2F");
        let url: PostgresUrl = format!("postgres://weir@{socket}/postgres")
            .parse()
            .unwrap();
        let uptime = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&uptime);
        let options = Options {
            timeout: Duration::from_secs(2),
            uptime: Uptime::from_fn(move || Duration::from_millis(read.load(Ordering::SeqCst))),
            spill: Some(SpillOptions {
                folder: folder.path().join("data"),
                requests_max: room,
            }),
            ..Options::new(url, Role::Server)
        };
        let accounts = Accounts::open(options.clone(), noon()).await.unwrap();
        let account = accounts.add_account("alice", noon()).await.unwrap();
        let paid = accounts.credit(&account.id, dollar(), "first", "", noon());
        paid.await.unwrap();
        let key = accounts.add_key(&account.id, None, noon()).await.unwrap();
        let caller = accounts.authenticate(key.secret.expose(), noon()).await;
        let (model, gate) = SimModel::new(SimOptions {
            end_probability: 0.0,
            ..SimOptions::default()
        })
        .gated();
        let engine = LocalEngine::spawn(model, sim::options()).unwrap();
        let offer = Offer {
            id: "m".to_owned(),
            created: 0,
            title: "m".to_owned(),
            description: String::new(),
            price: PRICE,
            max_output_tokens: None,
            engines: vec![Arc::new(engine)],
        };
        let catalog = Catalog::new(vec![offer]);
        let clock = Clock::from_fn(noon);
        let gateway = Gateway::new(catalog, accounts.clone(), Quotas::default(), clock)
            .with_stalls_of(Duration::from_millis(1_500));
        Outage {
            folder,
            options,
            accounts,
            gateway,
            caller: caller.unwrap(),
            gate,
            uptime,
        }
    }

    fn database(&self, what: &str) {
        postgres(&self.folder.path().join("cluster"), what);
    }

    async fn start(&self, id: &str, delivery: Delivery) -> Generation {
        let job = Job {
            delivery,
            ..job(id)
        };
        self.gateway.start(&self.caller, job).await.unwrap()
    }

    /// The total charge, and the outcome and the completion tokens of the usage record, of which there is at most one.
    async fn charged(&self, accounts: &Accounts) -> (i64, Option<(Outcome, u64)>) {
        let account = accounts.account("alice").await.unwrap();
        assert_eq!(account.held, Nanos::ZERO);
        assert_eq!(accounts.verify().await.unwrap(), Vec::<String>::new());
        let records = accounts.usage(&account.id, 10).await.unwrap();
        assert!(records.len() <= 1, "{records:?}");
        let record = records.first();
        let record = record.map(|record| (record.outcome, record.counts.completion));
        let charged = dollar().checked_sub(account.posted).unwrap();
        (charged.get(), record)
    }
}

fn dollar() -> Nanos {
    Nanos::from_usd(1).unwrap()
}

/// Reads a generation to its end: the tokens of its text events, and how it ended.
async fn collect(generation: &mut Generation) -> (u64, Result<Usage, Refusal>) {
    let mut texts = 0;
    loop {
        match generation.next().await.unwrap() {
            Ok(Event::Done(usage)) => return (texts, Ok(usage)),
            Ok(Event::Text { tokens, .. }) => texts += u64::from(tokens),
            Ok(_) => {}
            Err(refusal) => return (texts, Err(refusal)),
        }
    }
}

fn cost(usage: Usage) -> i64 {
    i64::try_from(usage.prompt * 1_000 + usage.completion * 2_000).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_the_database_and_is_settled_when_it_is_back() {
    let outage = Outage::new(8).await;
    let mut generation = outage.start("r1", Delivery::Stream).await;
    outage.database("stop");
    let refused = outage.gateway.start(&outage.caller, job("r2")).await;
    let refused = refused.map(|_| ());
    assert!(
        matches!(refused, Err(Refusal::StoreUnavailable { .. })),
        "{refused:?}"
    );
    outage.gate.open();
    let (_, done) = collect(&mut generation).await;
    let done = done.unwrap();
    drop(generation);
    assert_eq!(done.completion, 20);
    assert_eq!(outage.accounts.kept(), 1, "durable before the last event");

    outage.database("start");
    outage.gateway.settled().await;
    let expected = (cost(done), Some((Outcome::Success, 20)));
    assert_eq!(outage.charged(&outage.accounts).await, expected);
    assert_eq!(outage.gateway.unsettled(), 0);
    outage.accounts.close().await;
}

/// The process dies before the database is back: its next start charges for the delivered text.
#[test]
fn an_answer_that_was_complete_is_charged_by_the_next_start() {
    for delivery in [Delivery::Stream, Delivery::Whole] {
        let runtime = runtime();
        let (outage, done) = runtime.block_on(async {
            let outage = Outage::new(8).await;
            let mut generation = outage.start("r1", delivery).await;
            outage.database("stop");
            outage.gate.open();
            let (_, done) = collect(&mut generation).await;
            (outage, done.unwrap())
        });
        drop(runtime);
        self::runtime().block_on(async {
            outage.database("start");
            let Outage {
                folder,
                options,
                accounts,
                gateway,
                caller,
                gate,
                uptime,
            } = outage;
            drop((accounts, gateway));
            let next = Accounts::open(options.clone(), noon()).await.unwrap();
            let recovered = next.recover(noon()).await.unwrap();
            assert_eq!((recovered.settled, recovered.released), (1, 0));
            let account = next.account("alice").await.unwrap();
            assert_eq!(account.held, Nanos::ZERO);
            let charged = dollar().checked_sub(account.posted).unwrap();
            assert_eq!(charged.get(), cost(done), "{delivery:?}");
            assert_eq!(next.verify().await.unwrap(), Vec::<String>::new());
            drop((folder, caller, gate, uptime));
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// If the settlement can be stored nowhere, an answer has no last event, and text that wasn't delivered isn't charged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_can_be_charged_nowhere_is_not_complete() {
    for (delivery, charged) in [(Delivery::Stream, true), (Delivery::Whole, false)] {
        let outage = Outage::new(0).await;
        let mut generation = outage.start("r1", delivery).await;
        outage.database("stop");
        outage.gate.open();
        let (texts, end) = collect(&mut generation).await;
        let refused = matches!(end, Err(Refusal::StoreUnavailable { .. }));
        assert!(refused, "{delivery:?}: {end:?}");
        assert!(generation.next().await.is_none());
        assert_eq!(outage.gateway.unsettled(), 1);
        outage.database("start");
        outage.gateway.settled().await;
        let (nanos, record) = outage.charged(&outage.accounts).await;
        let expected = if charged { texts } else { 0 };
        assert_eq!(
            record,
            Some((Outcome::EngineFailed, expected)),
            "{delivery:?}"
        );
        assert_eq!(nanos > 0, charged, "{delivery:?}");
        outage.accounts.close().await;
    }
}

/// A node that can't prove that its lease is valid delivers nothing more, and charges for what it delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_lease() {
    let outage = Outage::new(8).await;
    let mut generation = outage.start("r1", Delivery::Stream).await;
    outage.gate.open();
    let first = generation.next().await.unwrap();
    assert!(first.is_ok(), "{first:?}");
    outage.database("stop");
    outage.uptime.store(28_000, Ordering::SeqCst);
    let (_, end) = collect(&mut generation).await;
    let refused = matches!(end, Err(Refusal::StoreUnavailable { .. }));
    assert!(refused, "{end:?}");
    outage.database("start");
    outage.gateway.settled().await;
    let (nanos, record) = outage.charged(&outage.accounts).await;
    let (outcome, completion) = record.unwrap();
    assert_eq!(outcome, Outcome::EngineFailed);
    assert!(nanos > 0 && (1..20).contains(&completion), "{completion}");
    outage.accounts.close().await;
}

/// A node that slept for longer than its lease goes on if no other node has ended its holds meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_when_the_lease_is_renewed() {
    let outage = Outage::new(8).await;
    let mut generation = outage.start("r1", Delivery::Stream).await;
    outage.uptime.store(3_600_000, Ordering::SeqCst);
    outage.gate.open();
    let renewed = outage.accounts.expire(noon());
    let ((_, done), renewed) = tokio::join!(collect(&mut generation), renewed);
    renewed.unwrap();
    assert_eq!(done.unwrap().completion, 20);
    outage.accounts.close().await;
}

/// An answer without `max_tokens` whose hold is used up and can't be extended waits for the database. It doesn't end as
/// if the balance were used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_waits_where_its_hold_ends() {
    for back in [true, false] {
        let outage = Outage::new(8).await;
        let mut job = job("r1");
        job.request.output.tokens = None;
        job.request.output.overflow = Overflow::Lower;
        let started = outage.gateway.start(&outage.caller, job).await;
        let mut generation = started.unwrap();
        outage.database("stop");
        outage.gate.open();
        let mut texts = 0;
        // The first hold covers 1,024 tokens; the engine generates no more.
        while texts < 1_000 {
            match generation.next().await.unwrap().unwrap() {
                Event::Text { tokens, .. } => texts += u64::from(tokens),
                other => panic!("{other:?}"),
            }
        }
        if back {
            outage.database("start");
            while texts < 1_100 {
                match generation.next().await.unwrap().unwrap() {
                    Event::Text { tokens, .. } => texts += u64::from(tokens),
                    other => panic!("{other:?}"),
                }
            }
            drop(generation);
        } else {
            let (_, end) = collect(&mut generation).await;
            let refused = matches!(end, Err(Refusal::StoreUnavailable { .. }));
            assert!(refused, "{end:?}");
            outage.database("start");
        }
        outage.gateway.settled().await;
        let (nanos, _) = outage.charged(&outage.accounts).await;
        assert!(nanos > 2_000_000, "{nanos}");
        outage.accounts.close().await;
    }
}

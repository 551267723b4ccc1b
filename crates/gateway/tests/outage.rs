//! The database goes away in the middle of a generation, and comes back: a real PostgreSQL, stopped and
//! started.
#![expect(clippy::unwrap_used, reason = "a test fails where it can't go on")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{Accounts, Nanos, Options, Outcome, PostgresUrl, Price, Role};
use weir_engine::local::LocalEngine;
use weir_engine::request::{Input, OutputLimit, Overflow, Prompt};
use weir_engine::sim::{self, SimModel, SimOptions};
use weir_engine::{Event, Request, Sampling};
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Delivery, Gateway, Job, Offer, Refusal};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_the_database_and_is_settled_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    // The server's user isn't who runs the test.
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).unwrap();
    let cluster = folder.path().join("cluster");
    postgres(&cluster, &std::process::id().to_string());
    let socket = cluster.to_str().unwrap().replace('/', "%2F");
    let url: PostgresUrl = format!("postgres://weir@{socket}/postgres")
        .parse()
        .unwrap();
    let options = Options {
        timeout: Duration::from_secs(2),
        ..Options::new(url, Role::Server)
    };
    let accounts = Accounts::open(options, noon()).await.unwrap();
    let account = accounts.add_account("alice", noon()).await.unwrap();
    let dollar = Nanos::from_usd(1).unwrap();
    let paid = accounts.credit(&account.id, dollar, "first", "", noon());
    paid.await.unwrap();
    let key = accounts.add_key(&account.id, None, noon()).await.unwrap();
    let caller = accounts.authenticate(key.secret.expose(), noon()).await;
    let caller = caller.unwrap();
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
        price: Price {
            input: 10_000,
            output: 20_000,
            cached: None,
        },
        max_output_tokens: None,
        engines: vec![Arc::new(engine)],
    };
    let catalog = Catalog::new(vec![offer]);
    let clock = Clock::from_fn(noon);
    let gateway = Gateway::new(catalog, accounts.clone(), Quotas::default(), clock);
    let mut generation = gateway.start(&caller, job("r1")).await.unwrap();

    postgres(&cluster, "stop");
    let began = Instant::now();
    let refused = gateway.start(&caller, job("r2")).await.map(|_| ());
    assert!(
        matches!(refused, Err(Refusal::Overloaded { .. })),
        "{refused:?}"
    );
    gate.open();
    let done = loop {
        match generation.next().await.unwrap() {
            Event::Done(usage) => break usage,
            Event::Failed(error) => panic!("{error:?}"),
            Event::Text { .. } | Event::Finished { .. } | Event::Call { .. } => {}
        }
    };
    drop(generation);
    assert_eq!(done.completion, 20);
    assert!(began.elapsed() < Duration::from_secs(10), "{began:?}");

    postgres(&cluster, "start");
    gateway.settled().await;
    let account = accounts.account("alice").await.unwrap();
    let cost = i64::try_from(done.prompt * 1_000 + done.completion * 2_000).unwrap();
    assert_eq!(account.held, Nanos::ZERO);
    assert_eq!(dollar.checked_sub(account.posted), Some(Nanos::new(cost)));
    let records = accounts.usage(&account.id, 10).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::Success);
    assert_eq!(accounts.verify().await.unwrap(), Vec::<String>::new());
    accounts.close().await;
}

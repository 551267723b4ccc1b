//! Benchmark: durable pairs of hold and settle a second, beside the fsyncs a second of the disk.
//!
//! `cargo run --release -p weir-accounts --example ledger_rate`; the database is in `$TMPDIR`, or the empty one that
//! `--database postgres://…` names, where three nodes hold and settle too, for one account and for many.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::error::Error;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{
    Accounts, Caller, Counts, Location, Nanos, NewHold, Options, Outcome, Price, Role, Settlement,
    Source,
};

const RUN: Duration = Duration::from_secs(3);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const PRICE: Price = Price {
    input: 200,
    output: 400,
    cached: None,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    println!("fsyncs per second {:>32}", fsyncs(folder.path())?);
    let mut arguments = std::env::args().skip(1);
    let location = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => folder.path().join("weir.db").into(),
        (Some("--database"), Some(url)) => Location::Postgres(url.parse()?),
        _ => return Err("ledger_rate [--database postgres://…]".into()),
    };
    let nodes_max = match location {
        Location::Sqlite(_) => 1,
        Location::Postgres(_) => 3,
    };
    let mut nodes = Vec::new();
    for _ in 0..nodes_max {
        nodes.push(Accounts::open(Options::new(location.clone(), Role::Server), NOW).await?);
    }
    let callers = callers(&nodes[0]).await?;
    for (nodes_used, accounts, concurrent) in [
        (1, 1, 1),
        (1, 1, 8),
        (1, 1, 64),
        (1, 64, 64),
        (3, 1, 64),
        (3, 64, 64),
        (3, 1, 192),
        (3, 64, 192),
    ] {
        if nodes_used > nodes_max {
            continue;
        }
        let workers = (0..concurrent).map(|worker| {
            let caller = &callers[worker % accounts];
            pairs(
                &nodes[worker % nodes_used],
                caller,
                format!("{nodes_used}_{accounts}_{concurrent}_{worker}"),
            )
        });
        let done: u64 = futures::future::try_join_all(workers).await?.iter().sum();
        let rate = done / RUN.as_secs();
        println!(
            "pairs per second, nodes {nodes_used}, accounts {accounts:>2}, at once {concurrent:>3} {rate:>7}"
        );
    }
    let started = Instant::now();
    let differences = nodes[0].verify().await?;
    println!(
        "verified in {:?}, {} differences",
        started.elapsed(),
        differences.len()
    );
    for node in nodes {
        node.close().await;
    }
    Ok(())
}

/// Callers of 64 accounts, each with a million dollars.
async fn callers(accounts: &Accounts) -> Result<Vec<Caller>, Box<dyn Error>> {
    let credit = Nanos::from_usd(1_000_000).ok_or("a million dollars can be counted")?;
    let mut callers = Vec::new();
    for n in 0..64 {
        let account = accounts.add_account(&format!("a{n}"), NOW).await?;
        accounts
            .credit(&account.id, credit, &format!("rate {n}"), "", NOW)
            .await?;
        let key = accounts.add_key(&account.id, None, NOW).await?;
        callers.push(accounts.authenticate(key.secret.expose(), NOW).await?);
    }
    Ok(callers)
}

/// Holds and settles one request after the other until the time is over. Returns how many there were.
async fn pairs(
    accounts: &Accounts,
    caller: &Caller,
    worker: String,
) -> Result<u64, Box<dyn Error>> {
    let started = Instant::now();
    let mut pairs = 0;
    while started.elapsed() < RUN {
        let new = NewHold {
            request: format!("req_{worker}_{pairs}"),
            attempt: 1,
            caller: caller.clone(),
            model: "org/model".to_owned(),
            price: PRICE,
            amount: Nanos::new(100_000),
            now: NOW,
        };
        let hold = accounts.hold(new)?.durable().await?;
        let counts = Counts {
            prompt: 100,
            completion: 200,
            ..Counts::default()
        };
        let settlement = Settlement {
            counts,
            outcome: Outcome::Success,
            source: Source::Engine,
            now: NOW,
        };
        accounts.settle(hold, settlement).await?;
        pairs += 1;
    }
    Ok(pairs)
}

/// Writes and syncs a page again and again. Returns how often a second.
fn fsyncs(folder: &Path) -> std::io::Result<u64> {
    let mut file = File::create(folder.join("fsync"))?;
    let started = Instant::now();
    let mut synced = 0;
    while started.elapsed() < RUN {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        synced += 1;
    }
    Ok(synced / RUN.as_secs())
}

//! How many durable pairs of hold and settle a second, beside what the disk can do.
//!
//! `cargo run --release -p weir-accounts --example ledger_rate`; the database is in `$TMPDIR`.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{
    Accounts, Caller, Counts, Nanos, NewHold, Options, Outcome, Price, Role, Settlement, Source,
};

const RUN: Duration = Duration::from_secs(3);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const PRICE: Price = Price {
    input: 200,
    output: 400,
    cached: None,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    println!("fsyncs per second          {:>7}", fsyncs(folder.path())?);
    let accounts = Accounts::open(
        Options::new(folder.path().join("weir.db"), Role::Server),
        NOW,
    )
    .await?;
    let account = accounts.add_account("demo", NOW).await?;
    let credit = Nanos::from_usd(1_000_000).ok_or("a million dollars can be counted")?;
    accounts
        .credit(&account.id, credit, "rate", "", NOW)
        .await?;
    let key = accounts.add_key(&account.id, None, NOW).await?;
    let caller = accounts.authenticate(key.secret.expose(), NOW).await?;
    for concurrent in [1u64, 8, 64] {
        let workers =
            (0..concurrent).map(|worker| pairs(&accounts, &caller, concurrent * 1_000 + worker));
        let pairs: u64 = futures::future::try_join_all(workers).await?.iter().sum();
        println!(
            "pairs per second, {concurrent:>2} at once {:>7}",
            pairs / RUN.as_secs()
        );
    }
    let started = Instant::now();
    let differences = accounts.verify().await?;
    println!(
        "verified in {:?}, {} differences",
        started.elapsed(),
        differences.len()
    );
    accounts.close().await;
    Ok(())
}

/// Holds and settles until the time is over, one after the other.
async fn pairs(
    accounts: &Accounts,
    caller: &Caller,
    worker: u64,
) -> Result<u64, Box<dyn std::error::Error>> {
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
            expires_at: Timestamp::MAX,
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

/// A page written and synced, again and again.
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

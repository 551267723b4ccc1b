//! Measures the time that limits cost a request, with counts in memory and in a store.
//!
//! `cargo run --release -p weir-gateway --example limits_rate -- redis://127.0.0.1:6379/0`
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::time::Duration;

use tokio::time::Instant;
use weir_gateway::limits::{Limits, NotAdmitted, Quotas, StoreFailure, StoreOptions, Subject};

const REQUESTS: usize = 5_000;
/// Far above what the example reaches: only the cost of counting is measured.
const QUOTAS: Quotas = Quotas {
    requests_per_minute: Some(1_000_000),
    tokens_per_minute: Some(1_000_000_000_000),
    concurrent_requests: Some(1_000_000),
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("microseconds per request: request and tokens admitted | and ended");
    table("memory", &Limits::new(Instant::now())).await?;
    for url in std::env::args().skip(1) {
        let options = StoreOptions {
            url,
            timeout: Duration::from_secs(1),
            on_failure: StoreFailure::Closed,
            node: 1,
        };
        let limits = Limits::shared(options, Instant::now()).await?;
        table("store", &limits).await?;
        limits.close().await;
    }
    Ok(())
}

async fn table(name: &str, limits: &Limits) -> Result<(), Box<dyn std::error::Error>> {
    for at_once in [1, 8, 64] {
        let started = Instant::now();
        let workers = (0..at_once).map(|worker| work(limits, worker, REQUESTS / at_once));
        let all = futures::future::join_all(workers).await;
        let all: Result<Vec<_>, NotAdmitted> = all.into_iter().collect();
        let all = all.map_err(|refused| format!("{refused:?}"))?.concat();
        let rate = all.len() as f64 / started.elapsed().as_secs_f64();
        let (admitted, ended): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        println!(
            "{name:<6} {at_once:>2} at once: {} | {}; {rate:.0} requests/s",
            shown(admitted),
            shown(ended)
        );
    }
    Ok(())
}

/// Makes one account's requests, one after the other. Returns for each the time until it could start, and the total.
async fn work(
    limits: &Limits,
    worker: usize,
    requests: usize,
) -> Result<Vec<(Duration, Duration)>, NotAdmitted> {
    let subject = |what: &str| Subject {
        name: format!("{{{worker}}}{what}").into(),
        quotas: QUOTAS,
    };
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let started = Instant::now();
        let subjects = vec![subject("key"), subject("model")];
        let mut permit = limits.admit_request(subjects, started).await?;
        permit.admit_tokens(1000, Instant::now()).await?;
        let admitted = started.elapsed();
        permit.end(300, Instant::now()).await;
        times.push((admitted, started.elapsed()));
    }
    Ok(times)
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
    format!("p50 {:>5} p99 {:>5}", at(50), at(99))
}

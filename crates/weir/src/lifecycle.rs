//! Starts, serves, and stops so that nothing that money depends on is lost.
//!
//! The order of the start: config, log, database (and what a dead process left open in it), models,
//! listener, the first account if there is none, and only then requests. The end is the reverse.

mod first_start;
mod log;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir_accounts::Accounts;
use weir_engine::local::LocalEngine;
use weir_gateway::{Clock, Gateway};
use weir_server::Stop;

use crate::cli::Json;
use crate::config::{Config, Invalid, Source};
use crate::{output, wire};

/// Requests wait to be settled.
const EXIT_UNSETTLED: u8 = 3;
/// How long the last settlements may take; what is open then is settled by the next start.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    config: Config,
    warnings: &[String],
    output: Json,
    clock: Clock,
) -> anyhow::Result<ExitCode> {
    tell(&config, warnings)?;
    if config.models.is_empty() {
        let what = "there is no model to serve: `make models` fetches some into ./models, or add [[models]] to a config";
        return Err(Invalid(vec![what.to_owned()]).into());
    }
    log::init(&config.log);
    raise_open_files(config.http.connections_max);
    let accounts = wire::accounts(&config, &clock).await?;
    let served = serve_with(&config, output, &clock, &accounts).await;
    accounts.close().await;
    served
}

async fn serve_with(
    config: &Config,
    output: Json,
    clock: &Clock,
    accounts: &Accounts,
) -> anyhow::Result<ExitCode> {
    let (catalog, engines) = wire::catalog(config, clock).await;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("can't listen on {}", config.listen))?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let mut signals = Signals::new()?;
    let gateway = wire::gateway(config, catalog, accounts.clone(), clock.clone()).await?;
    let app = wire::app(config, gateway.clone());
    let webhooks = wire::webhooks(config, accounts.clone(), clock.clone()).await?;
    first_start::first_start(gateway.catalog(), accounts, address, output, clock.now()).await?;
    let url = url(address);
    let text = format!("listening on {url}; Ctrl-C stops");
    output::one(output, &json!({"event": "ready", "url": url}), &text)?;

    let stop = Stop::default();
    let serving = async {
        let served = weir_server::serve(listener, app, stop.clone());
        let told = webhooks.run(stop.soft.clone());
        let kept = gateway.keep_house(stop.soft.clone());
        tokio::join!(served, kept, gateway.watch(stop.soft.clone()), told)
    };
    let stopping = async {
        signals.next().await;
        drain(&gateway, &stop, output);
        let why = tokio::select! {
            () = signals.next() => "a second signal",
            () = tokio::time::sleep(config.shutdown_grace) => "the grace time is over",
        };
        tracing::warn!(why, "running answers are cut");
        stop.hard.cancel();
        std::future::pending::<()>().await;
    };
    // Serving ends when the last connection has.
    tokio::select! {
        ((), (), (), ()) = serving => {}
        () = stopping => {}
    }
    settle(&gateway, &mut signals).await;
    end_engines(engines).await;
    Ok(unsettled(&gateway, accounts))
}

/// Nothing new from now on; what runs may finish.
fn drain(gateway: &Gateway, stop: &Stop, output: Json) {
    gateway.drain();
    stop.soft.cancel();
    tracing::info!("draining: running answers may finish; a second signal ends them");
    if output.json {
        // Whoever reads it may be gone; that must not keep answers from finishing.
        let _ = output::one(output, &json!({"event": "draining"}), "");
    }
}

/// Waits for the bills of answers that were cut. They are written within milliseconds, unless the database is out of
/// reach.
async fn settle(gateway: &Gateway, signals: &mut Signals) {
    tokio::select! {
        () = gateway.settled() => {}
        () = signals.next() => {}
        () = tokio::time::sleep(SETTLE_TIME_MAX) => {}
    }
}

/// Says what is left for the next start.
fn unsettled(gateway: &Gateway, accounts: &Accounts) -> ExitCode {
    let (unsettled, noted) = (gateway.unsettled(), accounts.kept());
    if unsettled == 0 && noted == 0 {
        return ExitCode::SUCCESS;
    }
    tracing::error!(
        unsettled,
        noted,
        "requests are not settled, as the database can't be written: the next start settles those that are noted in `data`"
    );
    ExitCode::from(EXIT_UNSETTLED)
}

async fn end_engines(engines: Vec<Arc<LocalEngine>>) {
    // Waits for the step that is running, and so blocks.
    let ended =
        tokio::task::spawn_blocking(move || engines.iter().for_each(|engine| engine.stop()));
    if ended.await.is_err() {
        tracing::error!("an engine ended in a panic");
    }
}

/// What was assumed, and what is odd.
fn tell(config: &Config, warnings: &[String]) -> std::io::Result<()> {
    if let Source::Assumed(said) = &config.source {
        said.iter().try_for_each(|line| output::note(line))?;
    }
    warnings.iter().try_for_each(|line| output::note(line))
}

/// Where a client on this machine finds a server that may listen on all addresses.
fn url(address: SocketAddr) -> String {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{reachable}")
}

/// Each connection is an open file, and the usual limit is low; the process may raise it itself.
fn raise_open_files(connections: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
    {
        tracing::warn!(%error, "the limit of open files can't be raised");
        return;
    }
    if maximum.is_some_and(|maximum| maximum < connections) {
        tracing::warn!(
            limit = maximum,
            connections,
            "the limit of open files is below http.connections_max"
        );
    }
}

/// SIGINT and SIGTERM, which mean the same.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_can_be_called() {
        let rows = [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
        ];
        for (address, expected) in rows {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }
}

//! Starts, serves, and stops in an order that loses no billing data.
//!
//! The order of a start: config, signals, log, the port (bound, but not listened on yet), the database (with holds that dead
//! processes left open), models, the first account if there is none, and only then the listener. A stop takes the reverse
//! order. A signal to stop ends a start at any of these points.

mod events;
mod first_start;
mod log;
mod reload;
mod signals;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpSocket;
use weir_accounts::Accounts;
use weir_engine::Engine;
use weir_gateway::{Clock, Gateway};
use weir_server::{App, Reload, Stop};
use weir_webhooks::Webhooks;

use self::events::Events;
use self::log::Logging;
use self::reload::Reloader;
use self::signals::Signals;
use crate::cli::Json;
use crate::config::changes::InForce;
use crate::config::{Config, Invalid, Loaded, Source};
use crate::wire::Models;
use crate::{output, wire};

/// The exit status if finished requests still wait to be settled.
const EXIT_UNSETTLED: u8 = 3;
/// The longest wait for the last settlements. The next start settles the others.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// How far a server came before it was stopped.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The server was stopped while it started. A model may still be loading, in a thread that can't be stopped.
    BeforeServing,
    /// The server ran. The exit status tells whether all requests are settled.
    Served(ExitCode),
}

pub(crate) async fn serve(
    load: &dyn Fn() -> Result<Loaded, Invalid>,
    output: Json,
    clock: Clock,
) -> anyhow::Result<Ended> {
    let loaded = load()?;
    let config = &loaded.config;
    let mut signals = Signals::new()?;
    tell(config, &loaded.warnings);
    has_models(config)?;
    let logging = log::init(&config.log)?;
    let events = Events::start(output)?;
    let socket = bind(config.listen)?;
    raise_open_files(config.http.connections_max);
    let opening = Box::pin(wire::accounts(config, &clock));
    let Some(accounts) = signals.unless_stopped(opening).await else {
        return Ok(Ended::BeforeServing);
    };
    let accounts = accounts?;
    let process = Process {
        loaded: &loaded,
        load,
        logging: &logging,
        events: &events,
        clock: &clock,
        accounts: &accounts,
    };
    let served = serve_with(&process, socket, &mut signals).await;
    accounts.close().await;
    served
}

/// A server without a model is a mistake.
fn has_models(config: &Config) -> Result<(), Invalid> {
    if config.models.is_empty() {
        let what = "there is no model to serve: `make models` fetches some into ./models, or add [[models]] to a config";
        return Err(Invalid(vec![what.to_owned()]));
    }
    Ok(())
}

/// The config and the output that a server is started with.
struct Process<'a> {
    loaded: &'a Loaded,
    /// Loads the config again.
    load: &'a dyn Fn() -> Result<Loaded, Invalid>,
    logging: &'a Logging,
    events: &'a Events,
    clock: &'a Clock,
    accounts: &'a Accounts,
}

async fn serve_with(
    process: &Process<'_>,
    socket: TcpSocket,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    let Process {
        loaded: Loaded { config, .. },
        events,
        accounts,
        ..
    } = process;
    let address = socket.local_addr().context("the listener has no address")?;
    let (reload, reloads) = Reload::channel();
    let starting = Box::pin(start(process, address, reload));
    let Some(started) = signals.unless_stopped(starting).await else {
        return Ok(Ended::BeforeServing);
    };
    let Started {
        app,
        models,
        webhooks,
    } = started?;
    let gateway = app.gateway.clone();
    let reloader = Reloader {
        load: process.load,
        in_force: InForce::new(process.loaded),
        app: app.clone(),
        webhooks: &webhooks,
        logging: process.logging,
    };
    let listener = socket
        .listen(BACKLOG)
        .with_context(|| format!("can't listen on {}", config.listen))?;
    events.ready(&url(address));

    let stop = Stop::default();
    let serving = async {
        let served = weir_server::serve(listener, app, stop.clone());
        let told = webhooks.run(stop.soft.clone());
        let kept = gateway.run_maintenance(stop.soft.clone());
        tokio::join!(served, kept, gateway.watch(stop.soft.clone()), told)
    };
    let stopping = async {
        let signal = reloader.until_stopped(signals, reloads).await;
        drain(&gateway, &stop, signal, events);
        let why = tokio::select! {
            _ = signals.stop() => "a second signal",
            () = tokio::time::sleep(config.shutdown.grace()) => "the grace time is over",
        };
        tracing::warn!(why, "running answers are cut");
        stop.hard.cancel();
        // Signals without a meaning are still logged.
        loop {
            signals.stop().await;
        }
    };
    // Serving ends when the last connection is closed.
    tokio::select! {
        ((), (), (), ()) = serving => {}
        () = stopping => {}
    }
    settle(&gateway, signals).await;
    end_engines(models.engines).await;
    #[cfg(feature = "llama")]
    drop(models.watch);
    Ok(Ended::Served(unsettled(&gateway, accounts)))
}

/// Everything that serves, ready to run.
struct Started {
    app: App,
    models: Models,
    webhooks: Webhooks,
}

async fn start(
    process: &Process<'_>,
    address: SocketAddr,
    reload: Reload,
) -> anyhow::Result<Started> {
    let Process {
        loaded: Loaded { config, .. },
        events,
        clock,
        accounts,
        ..
    } = *process;
    let (catalog, models) = wire::models(config, clock).await;
    let gateway = wire::gateway(config, catalog, accounts.clone(), clock.clone()).await?;
    let app = wire::app(config, gateway.clone(), reload);
    let webhooks = wire::webhooks(config, accounts.clone(), clock.clone()).await?;
    let (catalog, now) = (gateway.catalog(), clock.now());
    first_start::first_start(config, &catalog, accounts, address, events, now).await?;
    Ok(Started {
        app,
        models,
        webhooks,
    })
}

/// Takes the port before anything is loaded for it. Until the port is listened on, clients are refused instead of left waiting.
fn bind(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let bound = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let bound = bound.and_then(|socket| {
        // Makes the port available as soon as its last listener is gone, even with connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    let socket = bound.with_context(|| format!("can't listen on {address}"))?;
    if address.ip().is_unspecified() {
        tracing::warn!(
            %address,
            "listening on all addresses without TLS: keys, prompts and answers can be read on the way; \
             see docs/operations.md"
        );
    }
    Ok(socket)
}

/// Refuses new requests from now on; running ones may finish.
fn drain(gateway: &Gateway, stop: &Stop, signal: &str, events: &Events) {
    gateway.drain();
    stop.soft.cancel();
    tracing::info!(
        signal,
        "draining: running answers may finish; a second signal ends them"
    );
    events.draining();
}

/// Waits for the settlements of cut answers. They are written within milliseconds, unless the database is out of reach.
async fn settle(gateway: &Gateway, signals: &mut Signals) {
    tokio::select! {
        () = gateway.settled() => {}
        _ = signals.stop() => {}
        () = tokio::time::sleep(SETTLE_TIME_MAX) => {}
    }
}

/// Logs how many requests wait to be settled by the next start, and returns the exit status.
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

async fn end_engines(engines: Vec<Arc<dyn Engine>>) {
    engines.iter().for_each(|engine| engine.drain());
    for engine in &engines {
        engine.stop().await;
    }
}

/// Prints assumptions and warnings.
fn tell(config: &Config, warnings: &[String]) {
    if let Source::Assumed(said) = &config.source {
        said.iter().for_each(|line| output::note(line));
    }
    warnings.iter().for_each(|line| output::note(line));
}

/// The URL by which a client on this machine reaches the server, also if it listens on all addresses.
pub(crate) fn url(address: SocketAddr) -> String {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{reachable}")
}

/// Raises the limit of open files, which each connection counts against: the default is low, and a process may raise it itself.
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

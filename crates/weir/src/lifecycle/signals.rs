//! Signals stop the server, have it read its config again, or are ignored. None of them ends the process directly.

use std::fmt;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, a service manager's stop, and Ctrl-\.
const STOPS: [SignalName; 3] = [
    SignalName("SIGINT", SignalKind::interrupt()),
    SignalName("SIGTERM", SignalKind::terminate()),
    SignalName("SIGQUIT", SignalKind::quit()),
];

/// Signals that would end a process by default and are ignored here: log rotation and timers send some, SIGXCPU comes at a soft limit of processor time, and SIGXFSZ when a file may not grow any more, which the write reports as well.
/// Real-time signals are ignored, too.
const IGNORED: [SignalName; 10] = [
    SignalName("SIGUSR1", SignalKind::user_defined1()),
    SignalName("SIGUSR2", SignalKind::user_defined2()),
    SignalName("SIGALRM", SignalKind::alarm()),
    SignalName("SIGIO", SignalKind::io()),
    by_number("SIGXCPU", rustix::process::Signal::XCPU),
    by_number("SIGXFSZ", rustix::process::Signal::XFSZ),
    by_number("SIGVTALRM", rustix::process::Signal::VTALARM),
    by_number("SIGPROF", rustix::process::Signal::PROF),
    by_number("SIGSTKFLT", rustix::process::Signal::STKFLT),
    by_number("SIGPWR", rustix::process::Signal::POWER),
];

const fn by_number(name: &'static str, signal: rustix::process::Signal) -> SignalName {
    SignalName(name, SignalKind::from_raw(signal.as_raw()))
}

/// The real-time signals that programs may use: the C library keeps the first two for its threads.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// A signal's name; empty for a real-time signal, which is called by its number.
#[derive(Debug, Clone, Copy)]
struct SignalName(&'static str, SignalKind);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => write!(f, "SIG{}", self.1.as_raw_value()),
            name => f.write_str(name),
        }
    }
}

fn real_time() -> impl Iterator<Item = SignalName> {
    REAL_TIME.map(|number| SignalName("", SignalKind::from_raw(number)))
}

/// The handlers of all these signals, from `new` on.
#[derive(Debug)]
pub(crate) struct Signals {
    stops: Vec<(SignalName, Signal)>,
    ignored: Vec<(SignalName, Signal)>,
    reload: Signal,
}

/// A signal that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The server is to stop; with the signal's name.
    Stop(&'static str),
    /// The config is to be read again.
    Reload,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |name: &SignalName| {
            let signal = signal(name.1).with_context(|| name.to_string())?;
            anyhow::Ok((*name, signal))
        };
        Ok(Signals {
            stops: STOPS.iter().map(listen).collect::<Result<_, _>>()?,
            ignored: (IGNORED.into_iter().chain(real_time()))
                .map(|name| listen(&name))
                .collect::<Result<_, _>>()?,
            reload: signal(SignalKind::hangup()).context("SIGHUP")?,
        })
    }

    /// Waits for the next signal that means something. A request for a reload may have come before this call.
    pub(crate) async fn next(&mut self) -> Wanted {
        poll_fn(|context| {
            if let Poll::Ready(name) = self.poll_stop(context) {
                return Poll::Ready(Wanted::Stop(name));
            }
            self.reload.poll_recv(context).map(|_| Wanted::Reload)
        })
        .await
    }

    /// Waits for the next signal to stop. Ignored signals, earlier ones included, are logged.
    pub(crate) async fn stop(&mut self) -> &'static str {
        poll_fn(|context| self.poll_stop(context)).await
    }

    fn poll_stop(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        while let Poll::Ready(name) = next(&mut self.ignored, context) {
            tracing::info!(signal = %name, "a signal that means nothing was ignored");
        }
        next(&mut self.stops, context).map(|name| name.0)
    }

    /// The result of `work`, or `None` if a signal to stop comes first.
    pub(crate) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // If both are ready, the signal wins.
            biased;
            name = self.stop() => {
                tracing::info!(signal = name, "stopped before anything was served");
                None
            }
            done = work => Some(done),
        }
    }
}

/// The first of the signals that has arrived.
fn next(signals: &mut [(SignalName, Signal)], context: &mut Context<'_>) -> Poll<SignalName> {
    for (name, signal) in signals {
        if let Poll::Ready(Some(())) = signal.poll_recv(context) {
            return Poll::Ready(*name);
        }
    }
    Poll::Pending
}

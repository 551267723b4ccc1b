//! Signals mean two things to a server: stop, or nothing. None of them ends the process by itself.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, a service manager's stop, and Ctrl-\.
const STOPS: [SignalName; 3] = [
    SignalName("SIGINT", SignalKind::interrupt()),
    SignalName("SIGTERM", SignalKind::terminate()),
    SignalName("SIGQUIT", SignalKind::quit()),
];

/// Signals whose default is to end a process, and that mean nothing here: sent by tools for log rotation, by a terminal
/// that closes, by timers, and by the system where a file may not grow any more, which the write tells as well.
const IGNORED: [SignalName; 10] = [
    SignalName("SIGHUP", SignalKind::hangup()),
    SignalName("SIGUSR1", SignalKind::user_defined1()),
    SignalName("SIGUSR2", SignalKind::user_defined2()),
    SignalName("SIGALRM", SignalKind::alarm()),
    SignalName("SIGIO", SignalKind::io()),
    by_number("SIGXFSZ", rustix::process::Signal::XFSZ),
    by_number("SIGVTALRM", rustix::process::Signal::VTALARM),
    by_number("SIGPROF", rustix::process::Signal::PROF),
    by_number("SIGSTKFLT", rustix::process::Signal::STKFLT),
    by_number("SIGPWR", rustix::process::Signal::POWER),
];

const fn by_number(name: &'static str, signal: rustix::process::Signal) -> SignalName {
    SignalName(name, SignalKind::from_raw(signal.as_raw()))
}

#[derive(Debug, Clone, Copy)]
struct SignalName(&'static str, SignalKind);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// From its making on, signals do no more than what is done about them here.
#[derive(Debug)]
pub(crate) struct Signals {
    stops: Vec<(SignalName, Signal)>,
    ignored: Vec<(SignalName, Signal)>,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |name: &SignalName| {
            let signal = signal(name.1).with_context(|| name.to_string())?;
            anyhow::Ok((*name, signal))
        };
        Ok(Signals {
            stops: STOPS.iter().map(listen).collect::<Result<_, _>>()?,
            ignored: IGNORED.iter().map(listen).collect::<Result<_, _>>()?,
        })
    }

    /// Waits for the next signal to stop. Others that come, or came before, are logged.
    pub(crate) async fn stop(&mut self) -> &'static str {
        poll_fn(|context| {
            while let Poll::Ready(name) = next(&mut self.ignored, context) {
                tracing::info!(signal = %name, "a signal that means nothing was ignored");
            }
            next(&mut self.stops, context).map(|name| name.0)
        })
        .await
    }

    /// The outcome of `work`, or `None` if a signal to stop comes first.
    pub(crate) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // A signal that came before the work was done counts.
            biased;
            name = self.stop() => {
                tracing::info!(signal = name, "stopped before anything was served");
                None
            }
            done = work => Some(done),
        }
    }
}

/// The first of these signals that came.
fn next(signals: &mut [(SignalName, Signal)], context: &mut Context<'_>) -> Poll<SignalName> {
    for (name, signal) in signals {
        if let Poll::Ready(Some(())) = signal.poll_recv(context) {
            return Poll::Ready(*name);
        }
    }
    Poll::Pending
}

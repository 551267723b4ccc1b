//! The log: lines on stderr, as text or as JSON. The server runs on if the log can't be written.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, reload};
use weir_server::redact;

use crate::config::{Log, LogFormat};
use crate::output::line_queue::LineQueue;

/// The longest that the end of the process waits for the last lines to be written.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// The log. The last lines are written when it is dropped.
pub(crate) struct Logging {
    queue: LineQueue,
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>,
}

impl Logging {
    /// Replaces the filter. The config has checked it.
    pub(crate) fn filter(&self, directives: &str) {
        if let Err(error) = (self.set_filter)(filter(directives)) {
            tracing::error!(%error, "the log keeps its filter");
        }
        warn_of_old_target(directives);
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logging")
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.queue.flush(LAST_LINES_WAIT);
    }
}

/// Starts the log, which also gets panics.
pub(crate) fn init(log: &Log) -> anyhow::Result<Logging> {
    let queue =
        LineQueue::start("weir-log", io::stderr(), tell_loss).context("the log's thread")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&log.filter.0))
        // The library would report its own errors by `eprintln!`, which panics if stderr can't be written.
        .log_internal_errors(false)
        .with_writer(Queued(queue.clone()));
    let set_filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>> =
        if log.format == LogFormat::Json {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |filter| handle.reload(filter))
        } else {
            let ansi = io::stderr().is_terminal();
            let lines = lines.with_ansi(ansi).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Box::new(move |filter| handle.reload(filter))
        };
    panic::set_hook(Box::new(log_panic));
    warn_of_old_target(&log.filter.0);
    Ok(Logging { queue, set_filter })
}

/// The log target of the engine in this process, and the name that it had until it became a crate of its own.
const ENGINE_TARGET: &str = "weir_inference";
const OLD_ENGINE_TARGET: &str = "weir_engine";

/// The filter; directives for the engine's old target apply to its new one.
fn filter(directives: &str) -> EnvFilter {
    let directives = directives.replace(OLD_ENGINE_TARGET, ENGINE_TARGET);
    EnvFilter::try_new(directives).expect("the config has checked it")
}

fn warn_of_old_target(directives: &str) {
    if directives.contains(OLD_ENGINE_TARGET) {
        tracing::warn!(
            "log.filter: `{OLD_ENGINE_TARGET}` is called `{ENGINE_TARGET}` now; the old name goes on working for a release"
        );
    }
}

/// Logs the number of lost lines, but not before lines can be written again.
fn tell_loss(lines: u64, works: bool) -> bool {
    if works {
        tracing::warn!(
            lines,
            "lines of the log were lost: stderr was full, or nothing read it"
        );
    }
    works
}

/// Logs a panic. The default hook writes to stderr directly, and may wait there for ever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        thread = std::thread::current().name(),
        place = panic.location().map(tracing::field::display),
        panic = panic.payload_as_str().map(redact).as_deref(),
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "a thread panicked"
    );
}

/// The writer of log lines to the queue, which never fails.
#[derive(Debug, Clone)]
struct Queued(LineQueue);

impl<'a> MakeWriter<'a> for Queued {
    type Writer = &'a Queued;

    fn make_writer(&'a self) -> &'a Queued {
        self
    }
}

impl Write for &Queued {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_old_target_means_its_new_one() {
        let rows = [
            ("info,weir_engine=debug", "weir_inference=debug,info"),
            (
                "weir_engine::scheduler=trace",
                "weir_inference::scheduler=trace",
            ),
            ("info", "info"),
        ];
        for (directives, expected) in rows {
            assert_eq!(filter(directives).to_string(), expected);
        }
    }
}

//! The log: lines on stderr, as text or as JSON. The server runs on if the log can't be written.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use weir_server::redact;

use crate::config::Log;
use crate::output::line_queue::LineQueue;

/// The longest that the end of the process waits for the last lines to be written.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// The log. The last lines are written when it is dropped.
#[derive(Debug)]
pub(crate) struct Logging(LineQueue);

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES_WAIT);
    }
}

/// Starts the log, which also gets panics.
pub(crate) fn init(log: &Log) -> anyhow::Result<Logging> {
    let queue =
        LineQueue::start("weir-log", io::stderr(), tell_loss).context("the log's thread")?;
    let filter = EnvFilter::try_new(&log.filter).expect("the config has checked it");
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The library would report its own errors by `eprintln!`, which panics if stderr can't be written.
        .log_internal_errors(false)
        .with_writer(Queued(queue.clone()));
    if log.json {
        lines.json().flatten_event(true).init();
    } else {
        lines.with_ansi(io::stderr().is_terminal()).init();
    }
    panic::set_hook(Box::new(log_panic));
    Ok(Logging(queue))
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

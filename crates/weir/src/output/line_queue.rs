//! Lines for stderr or stdout that neither fail nor hold up the code that writes them.
//!
//! A thread writes the lines. Lines that it can't write, and lines that come while the queue is full, are dropped and
//! counted: an answer must not end because a disk is full or a terminal is gone.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Bytes that may wait to be written; lines beyond them are dropped.
const BYTES_MAX: usize = 4 << 20;
/// The longest wait for a stream that takes nothing, before the next attempt.
const FULL_STREAM_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Called with the number of lines that were dropped since the last call that returned true, and with whether the
/// stream works again. Returns whether the loss was told.
pub(crate) type OnLoss = fn(lines: u64, works: bool) -> bool;

/// A queue of lines and the thread that writes them. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct LineQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread has taken lines and not written them all.
    writing: bool,
    lines_lost: u64,
}

/// A destination that takes some or all of the bytes, or fails.
pub(crate) trait Sink: Send + 'static {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// Waits a moment until bytes may be taken again.
    fn wait(&mut self);
}

/// Standard streams. No lock is taken: a thread that is stuck in a write must not keep others from the stream.
impl<S: AsFd + Send + 'static> Sink for S {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(self.as_fd(), bytes)
    }

    fn wait(&mut self) {
        let mut streams = [PollFd::new(self, PollFlags::OUT)];
        // A signal or an error ends the wait early; the write that follows says what is wrong.
        let _ = poll(&mut streams, Some(&FULL_STREAM_WAIT));
    }
}

impl LineQueue {
    pub(crate) fn start(name: &str, sink: impl Sink, on_loss: OnLoss) -> io::Result<Self> {
        LineQueue::with_capacity(name, sink, on_loss, BYTES_MAX)
    }

    fn with_capacity(
        name: &str,
        sink: impl Sink,
        on_loss: OnLoss,
        bytes_max: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bytes_max,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let queue = Arc::clone(&shared);
        // Nothing waits for this thread: it may be stuck in a write when the process ends.
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&queue, sink, on_loss))?;
        Ok(LineQueue(shared))
    }

    /// Adds whole lines, which stay together, or drops them if the queue is full.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if lines.len() > self.0.bytes_max.saturating_sub(state.waiting.len()) {
            state.lines_lost += count_lines(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until the thread has nothing left to write, but no longer than `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let state = self.0.lock();
        let waited = self.0.changed.wait_timeout_while(state, limit, busy);
        drop(waited);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines, and takes all of them.
    fn take(&self) -> Vec<u8> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        std::mem::take(&mut state.waiting)
    }

    /// Adds to the count of lost lines, and returns how many haven't been reported yet.
    fn written(&self, lines_lost: u64) -> u64 {
        let mut state = self.lock();
        state.lines_lost += lines_lost;
        state.lines_lost
    }

    fn told(&self, lines: u64) {
        self.lock().lines_lost -= lines;
    }

    fn rest(&self) {
        self.lock().writing = false;
        self.changed.notify_all();
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    u64::try_from(lines).unwrap_or(u64::MAX)
}

fn write_all(queue: &Shared, mut sink: impl Sink, on_loss: OnLoss) {
    let mut torn = false;
    loop {
        let lines = queue.take();
        let Written {
            lines_lost,
            torn: still,
            works,
        } = write_lines(&mut sink, &lines, torn);
        torn = still;
        let lost = queue.written(lines_lost);
        // The report may itself be a line of this queue: it is written before the queue counts as empty.
        if lost > 0 && on_loss(lost, works) {
            queue.told(lost);
        }
        queue.rest();
    }
}

/// The outcome of writing some lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    lines_lost: u64,
    /// The last line that was written lacks its end.
    torn: bool,
    /// The last write succeeded.
    works: bool,
}

/// Writes the lines. A line whose write fails is given up, perhaps half written. If `torn`, the last line before lacks its
/// end, and gets one first.
fn write_lines(sink: &mut impl Sink, lines: &[u8], torn: bool) -> Written {
    let mut written = Written {
        lines_lost: 0,
        torn,
        works: true,
    };
    let mut rest = lines;
    while !rest.is_empty() {
        let outcome = match written.torn {
            true => write(sink, b"\n").map_err(|_| 0),
            false => Ok(()),
        };
        written.torn &= outcome.is_err();
        let Err(taken) = outcome.and_then(|()| write(sink, rest)) else {
            written.works = true;
            break;
        };
        // The line that failed is given up; the next one may fit.
        let begin = rest[..taken].iter().rposition(|byte| *byte == b'\n');
        written.torn |= begin.map_or(taken, |at| taken - at - 1) > 0;
        let end = rest[taken..].iter().position(|byte| *byte == b'\n');
        rest = end.map_or(&[][..], |end| &rest[taken + end + 1..]);
        written.lines_lost += 1;
        written.works = false;
    }
    written
}

/// Writes all bytes, however long the stream takes. The error is the number of bytes that were written.
fn write(sink: &mut impl Sink, bytes: &[u8]) -> Result<(), usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match sink.write(&bytes[taken..]) {
            Ok(0) => return Err(taken),
            Ok(more) => taken += more,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => sink.wait(),
            Err(_) => return Err(taken),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

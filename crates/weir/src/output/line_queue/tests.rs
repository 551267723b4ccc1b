use std::collections::VecDeque;
use std::sync::mpsc;

use super::*;

/// The outcome of one write.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Takes this many bytes at most.
    Take(usize),
    Fail(Errno),
}

/// A stream with scripted results, which takes everything afterwards.
#[derive(Debug, Default)]
struct Scripted {
    acts: VecDeque<Act>,
    waits: usize,
    taken: Vec<u8>,
}

impl Sink for Scripted {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.acts.pop_front().unwrap_or(Act::Take(usize::MAX)) {
            Act::Take(most) => {
                let taken = most.min(bytes.len());
                self.taken.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            Act::Fail(error) => Err(error),
        }
    }

    fn wait(&mut self) {
        self.waits += 1;
    }
}

#[test]
fn a_line_that_fails_takes_no_other_with_it() {
    use Act::{Fail, Take};
    let full = Fail(Errno::NOSPC);
    let rows: &[(&[Act], &str, u64)] = &[
        (&[], "one\ntwo\nthree\n", 0),
        (&[Take(5), Take(1)], "one\ntwo\nthree\n", 0),
        (&[Fail(Errno::INTR)], "one\ntwo\nthree\n", 0),
        (
            &[Fail(Errno::AGAIN), Fail(Errno::AGAIN)],
            "one\ntwo\nthree\n",
            0,
        ),
        (&[full], "two\nthree\n", 1),
        (&[Take(4), full], "one\nthree\n", 1),
        // The half-written line gets its end before the next line.
        (&[Take(2), full], "on\ntwo\nthree\n", 1),
        (&[Take(6), full], "one\ntw\nthree\n", 1),
        // Writing the end of the half-written line may fail too.
        (&[Take(6), full, full], "one\ntw", 2),
        (&[full, full, full], "", 3),
        (&[Fail(Errno::PIPE), Fail(Errno::IO)], "three\n", 2),
        (&[Take(0)], "two\nthree\n", 1),
    ];
    for (acts, taken, lines_lost) in rows {
        let mut sink = Scripted {
            acts: acts.iter().copied().collect(),
            ..Scripted::default()
        };
        let written = write_lines(&mut sink, b"one\ntwo\nthree\n", false);
        let text = String::from_utf8(sink.taken).unwrap();
        assert_eq!(
            (&*text, written.lines_lost),
            (*taken, *lines_lost),
            "{acts:?}"
        );
        assert_eq!(
            written.torn,
            !text.is_empty() && !text.ends_with('\n'),
            "{acts:?}"
        );
    }
}

/// A stream whose writes wait until the test lets them through, and which reports what it took.
struct Gated {
    go: mpsc::Receiver<Result<(), Errno>>,
    taken: mpsc::Sender<String>,
}

impl Sink for Gated {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.go.recv().unwrap_or(Ok(()))?;
        let _ = self.taken.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn wait(&mut self) {}
}

/// A gated stream, with the channel that opens its gate and the one with the bytes that it took.
fn gated() -> (
    Gated,
    mpsc::Sender<Result<(), Errno>>,
    mpsc::Receiver<String>,
) {
    let (open, go) = mpsc::channel();
    let (taken, came) = mpsc::channel();
    (Gated { go, taken }, open, came)
}

#[test]
fn a_stream_that_nobody_reads_holds_up_nobody() {
    let (sink, open, came) = gated();
    let queue = LineQueue::with_capacity("test", sink, |_, _| false, 10).unwrap();
    queue.push(b"first\n");
    // The thread is stuck with the first line, or about to take it; of the others, ten bytes fit at most.
    for _ in 0..1000 {
        queue.push(b"12345678\n");
    }
    queue.flush(Duration::from_millis(1));
    drop(open);
    queue.flush(Duration::from_secs(60));
    let lines: String = came.try_iter().collect();
    assert!(
        lines.starts_with("first\n") && lines.len() <= 6 + 9 + 9,
        "{lines}"
    );
    assert!(queue.0.lock().lines_lost >= 998);
}

#[test]
fn a_loss_is_told_once_when_writing_works_again() {
    static TOLD: Mutex<Vec<(u64, bool)>> = Mutex::new(Vec::new());
    let (sink, open, came) = gated();
    let told = |lines, works| {
        TOLD.lock().unwrap().push((lines, works));
        works
    };
    let queue = LineQueue::start("test", sink, told).unwrap();
    for (line, outcome) in [
        ("a\n", Err(Errno::NOSPC)),
        ("b\n", Err(Errno::IO)),
        ("c\n", Ok(())),
        ("d\n", Ok(())),
    ] {
        queue.push(line.as_bytes());
        open.send(outcome).unwrap();
        queue.flush(Duration::from_secs(60));
    }
    assert_eq!(came.try_iter().collect::<String>(), "c\nd\n");
    assert_eq!(*TOLD.lock().unwrap(), [(1, false), (2, false), (2, true)]);
}

#[test]
fn a_pipe_without_a_reader_is_an_error_and_no_end() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let queue = LineQueue::start("test", writer, |_, _| false).unwrap();
    queue.push(b"one\ntwo\n");
    queue.flush(Duration::from_secs(60));
    assert_eq!(queue.0.lock().lines_lost, 2);
}

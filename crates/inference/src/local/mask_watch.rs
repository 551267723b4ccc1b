//! Ends masks that take too long. The grammar engine bounds the items of a mask, not the time for them, which grows with
//! their square and more: a grammar with many readings of the same text can take seconds for one mask.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use crate::constraint::MaskStop;

/// Wall time after which a mask is given up: forty times of what the grammar engine's own bounds let one take.
const MASK_TIME_MAX: Duration = Duration::from_secs(1);
/// How often running masks are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// A thread that stops masks. Dropping the watch ends the thread.
pub(crate) struct MaskWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    time_max: Duration,
}

#[derive(Default)]
struct State {
    running: HashMap<u64, (Instant, MaskStop)>,
    last: u64,
    /// Whether the thread waits for a mask to begin, not for time to pass.
    idle: bool,
    closed: bool,
}

/// A mask that is computed; dropping it says that the mask is done.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    number: u64,
}

impl MaskWatch {
    pub(crate) fn start() -> std::io::Result<Self> {
        MaskWatch::with_time_max(MASK_TIME_MAX)
    }

    fn with_time_max(time_max: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            time_max,
            ..Shared::default()
        });
        let watching = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weir-mask-time".to_owned())
            .spawn(move || watching.run())?;
        Ok(MaskWatch {
            shared,
            thread: Some(thread),
        })
    }

    /// For the threads that compute masks.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }
}

impl Drop for MaskWatch {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that ends long masks panicked");
        }
    }
}

/// The part of a [`MaskWatch`] that threads have which compute masks.
#[derive(Clone)]
pub(crate) struct Watcher(Arc<Shared>);

impl Watcher {
    /// Stops the mask, unless it is done in time.
    pub(crate) fn watch(&self, stop: MaskStop) -> Watched {
        let mut state = self.0.lock();
        state.last += 1;
        let number = state.last;
        state.running.insert(number, (Instant::now(), stop));
        if std::mem::take(&mut state.idle) {
            self.0.changed.notify_one();
        }
        Watched {
            shared: Arc::clone(&self.0),
            number,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.lock().running.remove(&self.number);
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            state.idle = state.running.is_empty();
            state = match state.idle {
                true => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                false => {
                    let waited = self.changed.wait_timeout(state, PERIOD.min(self.time_max));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            for (began, stop) in state.running.values() {
                if began.elapsed() >= self.time_max {
                    stop.stop();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::{
        Cancel, Constraints, Failure, Grammar, MaskComputer, MaskJob, Next, Part,
    };
    use crate::model::{Bos, Tokenizer};
    use crate::sim::SimTokenizer;

    /// A text with more and more readings, whose masks the engine's own bounds let take ever longer.
    const MANY_READINGS: &str = r#"root ::= x
x ::= "a" | x x | x x x | x x x x"#;
    /// Without an end the last of these masks takes a third of a second.
    const TOKENS: usize = 225;

    #[test]
    fn a_mask_that_takes_too_long_is_stopped() {
        let grammar = Grammar(Part::Grammar(MANY_READINGS.into(), "grammar"));
        let constraints = Constraints::new(Arc::new(SimTokenizer));
        let compiled = constraints.compile(&grammar, &Cancel::default());
        let mut walk = compiled.unwrap().constraint.begin();
        let watch = MaskWatch::with_time_max(Duration::from_millis(20)).unwrap();
        let mut masks = WatchedMasks(watch.watcher());
        let token = SimTokenizer.tokenize("a", Bos::Omit)[0];
        for _ in 0..TOKENS {
            if matches!(walk.ahead(), Next::Allowed(_)) {
                walk.advance(token, &mut masks);
            }
        }
        assert_eq!(walk.ahead(), Next::Failed(Failure::TooComplex));
        assert!(watch.shared.lock().running.is_empty());
    }

    struct WatchedMasks(Watcher);

    impl MaskComputer for WatchedMasks {
        fn compute(&mut self, mut job: MaskJob) {
            let watched = job.stop().map(|stop| self.0.watch(stop));
            job.run();
            drop(watched);
        }
    }
}

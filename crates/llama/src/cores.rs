//! Chooses how many threads compute: as many as there are free cores.
//!
//! Between any two operations of a step all its threads wait for the slowest one, and spin. If another process takes one of
//! two cores, a step takes three times as long on two threads; on one thread it takes little longer than on an idle
//! machine (decision 0004). So the system is asked now and then how long these threads have waited for a core, and how much
//! of the cores is unused.

mod system;

use std::time::Duration;

pub(crate) use system::threads_started;
use system::{Clock, Sample};

/// How long the system is watched before each decision.
const WINDOW: Duration = Duration::from_millis(250);
/// The part of a window that steps must fill for the window to count.
const BUSY: f64 = 0.8;
/// With this many threads waiting for a core on average, fewer threads are faster.
const WAITING: f64 = 0.4;
/// If this much of a core is unused, one more thread is faster.
const FREE: f64 = 0.65;
/// The number of consecutive windows that must agree before the number of threads changes.
const AGREEING: u32 = 2;
/// In windows: if an added thread has to be taken away again this soon, the next one must wait for twice as many windows, …
const SOON: u32 = 20;
/// … up to this many.
const AGREEING_MAX: u32 = 128;

/// Watches the system for the threads of one context.
#[derive(Debug)]
pub(crate) struct Cores {
    choice: Choice,
    clock: Clock,
    /// Thread ids of the kernels' threads, without the thread that calls.
    workers: Vec<String>,
    computed: Duration,
    last: Option<Sample>,
}

impl Cores {
    /// `None` if `least` and `most` leave no choice, or if the system doesn't publish the times that this needs.
    pub(crate) fn watch(least: u32, most: u32, workers: Vec<String>) -> Option<Self> {
        let clock = Clock::start();
        let first = Sample::take(&clock, &workers)?;
        (least < most).then(|| Cores {
            choice: Choice::new(least, most),
            clock,
            workers,
            computed: Duration::ZERO,
            last: Some(first),
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Records a step that began at `began` and has just ended. Returns the number of threads for the next step if it changes.
    pub(crate) fn step(&mut self, began: Duration) -> Option<u32> {
        let now = self.clock.now();
        self.computed += now.saturating_sub(began);
        let window = self
            .last
            .as_ref()
            .map_or(WINDOW, |last| now.saturating_sub(last.at));
        if window < WINDOW {
            return None;
        }
        let computed = std::mem::take(&mut self.computed);
        let sample = Sample::take(&self.clock, &self.workers);
        let seen = match (&self.last, &sample) {
            (Some(last), Some(sample)) if computed >= window.mul_f64(BUSY) => {
                Some(sample.since(last))
            }
            _ => None,
        };
        self.last = sample;
        let next = self.choice.window(seen?);
        tracing::trace!(?seen, ?next, "cores");
        next
    }

    /// Tells that the kernels compute on other threads now.
    pub(crate) fn replaced(&mut self, workers: Vec<String>) {
        self.workers = workers;
        self.last = Sample::take(&self.clock, &self.workers);
    }
}

/// Averages over a window, in cores.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// Cores that the threads wanted and didn't get.
    waiting: f64,
    /// Cores that were unused.
    free: f64,
}

/// The decision itself, without clock or system.
#[derive(Debug)]
struct Choice {
    least: u32,
    most: u32,
    now: u32,
    /// Consecutive windows, up to the last one, that asked for fewer threads and for more.
    fewer: u32,
    more: u32,
    /// The number of consecutive windows that must ask for more threads.
    agreeing: u32,
    /// Windows since a thread was added, or [`SOON`] at least if it has been taken away again.
    since_more: u32,
}

impl Choice {
    fn new(least: u32, most: u32) -> Self {
        Choice {
            least,
            most,
            now: most,
            fewer: 0,
            more: 0,
            agreeing: AGREEING,
            since_more: SOON,
        }
    }

    /// Takes a window into account, and returns the new number of threads if it changes.
    fn window(&mut self, seen: Seen) -> Option<u32> {
        self.since_more = self.since_more.saturating_add(1);
        if self.since_more == SOON {
            self.agreeing = AGREEING;
        }
        let waits = seen.waiting >= WAITING;
        self.fewer = if waits { self.fewer + 1 } else { 0 };
        self.more = if !waits && seen.free >= FREE {
            self.more + 1
        } else {
            0
        };
        let next = if self.fewer >= AGREEING {
            let lacking = (seen.waiting.round() as u32).max(1);
            self.now.saturating_sub(lacking).max(self.least)
        } else if self.more >= self.agreeing {
            (self.now + 1).min(self.most)
        } else {
            self.now
        };
        if next == self.now {
            return None;
        }
        if next > self.now {
            self.since_more = 0;
        } else {
            if self.since_more < SOON {
                self.agreeing = (self.agreeing * 2).min(AGREEING_MAX);
            }
            self.since_more = SOON;
        }
        (self.fewer, self.more) = (0, 0);
        self.now = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Seen = Seen {
        waiting: 0.02,
        free: 0.0,
    };
    const CROWDED: Seen = Seen {
        waiting: 0.6,
        free: 0.0,
    };
    const ALONE: Seen = Seen {
        waiting: 0.0,
        free: 0.9,
    };

    fn run(choice: &mut Choice, windows: &[Seen]) -> Vec<u32> {
        let after = |seen: &Seen| {
            choice.window(*seen);
            choice.now
        };
        windows.iter().map(after).collect()
    }

    #[test]
    fn threads_follow_the_cores_that_others_leave() {
        let check = |least: u32, most: u32, windows: &[Seen], expected: &[u32]| {
            assert_eq!(run(&mut Choice::new(least, most), windows), expected);
        };
        check(1, 2, &[IDLE; 4], &[2; 4]);
        // One window alone changes nothing.
        check(1, 2, &[CROWDED, IDLE, CROWDED], &[2, 2, 2]);
        check(1, 2, &[CROWDED, CROWDED, CROWDED], &[2, 1, 1]);
        check(1, 2, &[CROWDED, CROWDED, ALONE, ALONE], &[2, 1, 1, 2]);
        // A core that others use for half of the time isn't free.
        let half = Seen {
            waiting: 0.0,
            free: 0.5,
        };
        check(1, 2, &[CROWDED, CROWDED, half, half], &[2, 1, 1, 1]);
        check(2, 2, &[CROWDED; 3], &[2; 3]);
        let lacking_three = Seen {
            waiting: 3.2,
            free: 0.0,
        };
        check(1, 8, &[lacking_three; 5], &[8, 5, 5, 2, 2]);
        check(4, 8, &[lacking_three; 5], &[8, 5, 5, 4, 4]);
    }

    #[test]
    fn who_goes_to_and_fro_waits_ever_longer() {
        let mut choice = Choice::new(1, 2);
        run(&mut choice, &[CROWDED; 2]);
        let mut waited = Vec::new();
        for _ in 0..9 {
            let mut windows = 0;
            while choice.now == 1 {
                choice.window(ALONE);
                windows += 1;
            }
            waited.push(windows);
            run(&mut choice, &[CROWDED; 2]);
        }
        assert_eq!(waited, [2, 4, 8, 16, 32, 64, 128, 128, 128]);
        // After a quiet time two windows are enough again.
        run(&mut choice, &[ALONE; 128]);
        run(&mut choice, &[IDLE; SOON as usize]);
        assert_eq!(
            run(&mut choice, &[CROWDED, CROWDED, ALONE, ALONE]),
            [2, 1, 1, 2]
        );
    }

    #[test]
    fn a_thread_that_waits_for_its_core_is_seen() {
        let Some(mut cores) = Cores::watch(1, 2, Vec::new()) else {
            // Not Linux.
            return;
        };
        let began = cores.now();
        assert_eq!(cores.step(began), None);
        assert!(cores.last.is_some());
    }
}

//! How many threads compute: as many as there are cores for.
//!
//! Between any two operations of a step all its threads wait for the slowest one, and spin. If another process takes one of
//! two cores, a step takes three times as long on two threads, and on one not much longer than if that had the machine
//! for itself (decision 0004). So the system is asked now and then how long these threads have waited for a
//! core, and which cores nobody uses.

mod system;

use std::time::Duration;

pub(crate) use system::threads_started;
use system::{Clock, Sample};

/// How long the system is watched before it is asked again.
const WINDOW: Duration = Duration::from_millis(250);
/// Steps fill at least this part of a window that says something.
const BUSY: f64 = 0.8;
/// With so many threads waiting for a core on average, fewer are faster.
const WAITING: f64 = 0.4;
/// From so much of a core that nobody uses, another thread is faster.
const FREE: f64 = 0.65;
/// So many windows one after the other say the same before anything is changed.
const AGREEING: u32 = 2;
/// Whoever needs one thread fewer this soon after it was given one more waits twice as long for the next one, …
const SOON: u32 = 20;
/// … but no longer than so many windows.
const AGREEING_MAX: u32 = 128;

/// Watches the system for the threads of one context.
#[derive(Debug)]
pub(crate) struct Cores {
    choice: Choice,
    clock: Clock,
    /// Of the kernels, beside the one that calls.
    workers: Vec<String>,
    computed: Duration,
    last: Option<Sample>,
}

impl Cores {
    /// `None` where nothing is to be chosen, or the system doesn't say what is needed for it.
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

    /// A step began and has ended: how many threads the next one is to have, if that is another number.
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

    /// Its threads are others now.
    pub(crate) fn replaced(&mut self, workers: Vec<String>) {
        self.workers = workers;
        self.last = Sample::take(&self.clock, &self.workers);
    }
}

/// What a window has shown, in cores.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// That the threads wanted and didn't have.
    waiting: f64,
    /// That nobody used.
    free: f64,
}

/// Without a clock or a system.
#[derive(Debug)]
struct Choice {
    least: u32,
    most: u32,
    now: u32,
    /// Windows that said "fewer" and "more", up to the last one.
    fewer: u32,
    more: u32,
    /// Windows that must say "more".
    agreeing: u32,
    /// Windows since there was one more, as long as it is there.
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

    /// The new number, if it is another.
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
        // One window says nothing.
        check(1, 2, &[CROWDED, IDLE, CROWDED], &[2, 2, 2]);
        check(1, 2, &[CROWDED, CROWDED, CROWDED], &[2, 1, 1]);
        check(1, 2, &[CROWDED, CROWDED, ALONE, ALONE], &[2, 1, 1, 2]);
        // A core that is used by half is nothing to count on.
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
        // A quiet time, and it is as at first.
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

//! How long what is computed aside may go on between two steps, so that no stream is silent for longer than it may be.

use std::time::Duration;

/// A step and what follows it are to take so many targets together: less than two, which is what is promised, since both may take
/// longer than the last ones did.
const TARGETS: f64 = 1.75;
/// However long steps take, it gets on for this part of a target.
const PART_MIN: f64 = 0.25;
/// Weight of the newest turn in the average.
const NEWEST: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Turns {
    target: Duration,
    /// How much longer than asked it goes on, on average: until the next place where it can pause.
    late: Duration,
}

impl Turns {
    pub(crate) fn new(target: Duration) -> Self {
        Turns {
            target,
            late: Duration::ZERO,
        }
    }

    /// The next turn, after a step that took so long, if there was one, and with streams that wait or without.
    pub(crate) fn next(&self, step: Duration, streams: bool) -> Duration {
        if !streams {
            // Others' prompts have as much.
            return self.target.max(step);
        }
        let left = self.target.mul_f64(TARGETS);
        let left = left.saturating_sub(step).saturating_sub(self.late);
        left.max(self.target.mul_f64(PART_MIN))
    }

    pub(crate) fn measure(&mut self, asked: Duration, took: Duration) {
        let late = took.saturating_sub(asked);
        self.late = self.late.mul_f64(1.0 - NEWEST) + late.mul_f64(NEWEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_turn_is_what_a_step_leaves() {
        let check = |late: u64, step: u64, streams: bool, expected: u64| {
            let mut turns = Turns::new(ms(100));
            (0..100).for_each(|_| turns.measure(ms(50), ms(50 + late)));
            let next = turns.next(ms(step), streams).as_millis();
            assert!(
                next.abs_diff(expected.into()) <= 1,
                "{next}, not {expected}"
            );
        };
        check(0, 0, true, 175);
        check(0, 30, true, 145);
        check(20, 30, true, 125);
        check(20, 140, true, 25);
        check(20, 900, true, 25);
        check(20, 0, false, 100);
        check(20, 900, false, 900);
    }
}

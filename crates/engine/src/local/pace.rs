//! How fast steps are: how many prompt tokens may ride along with decoding streams, and how long a
//! queue will take.

use std::time::Duration;

/// Below this a prompt would never get anywhere; kernels compute rows in fours anyway.
const BUDGET_MIN: u32 = 4;
/// Prompt tokens beside streams before anything was measured.
const BUDGET_START: u32 = 64;
/// Weight of the newest step in the average speed.
const NEWEST: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Pace {
    target: Duration,
    rows: u32,
    budget: u32,
    rows_per_second: Option<f64>,
}

/// A step that was computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) took: Duration,
    pub(crate) rows: u32,
    pub(crate) prompt_rows: u32,
    /// Whether somebody waited for its next token meanwhile.
    pub(crate) decoding: bool,
}

impl Pace {
    pub(crate) fn new(target: Duration, rows: u32) -> Self {
        Pace {
            target,
            rows,
            budget: BUDGET_START.min(rows),
            rows_per_second: None,
        }
    }

    /// Prompt tokens of the next step. With nobody decoding nobody is kept waiting.
    pub(crate) fn budget(&self, decoding: bool) -> u32 {
        if decoding { self.budget } else { self.rows }
    }

    pub(crate) fn measure(&mut self, step: Measured) {
        let seconds = step.took.as_secs_f64().max(1e-6);
        let speed = f64::from(step.rows) / seconds;
        self.rows_per_second = Some(match self.rows_per_second {
            Some(average) => average + (speed - average) * NEWEST,
            None => speed,
        });
        // A step with fewer prompt tokens than the budget says nothing against a greater one.
        if step.decoding && step.prompt_rows > 0 {
            if step.took > self.target {
                self.budget = (self.budget / 2).max(BUDGET_MIN.min(self.rows));
            } else if step.took < self.target.mul_f64(0.8) && step.prompt_rows >= self.budget {
                self.budget = (self.budget + self.budget.div_ceil(4)).min(self.rows);
            }
        }
    }

    /// Time for so many tokens; zero as long as nothing was measured.
    pub(crate) fn estimate(&self, tokens: u64) -> Duration {
        self.rows_per_second.map_or(Duration::ZERO, |speed| {
            Duration::try_from_secs_f64(tokens as f64 / speed).unwrap_or(Duration::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_step_time() {
        let target = Duration::from_millis(100);
        let check = |tokens_per_second: u32, settles: std::ops::RangeInclusive<u32>| {
            let mut pace = Pace::new(target, 512);
            let step = |pace: &mut Pace| {
                let rows = pace.budget(true) + 8;
                let took = Duration::from_secs_f64(f64::from(rows) / f64::from(tokens_per_second));
                pace.measure(Measured {
                    took,
                    rows,
                    prompt_rows: pace.budget(true),
                    decoding: true,
                });
            };
            (0..50).for_each(|_| step(&mut pace));
            for _ in 0..20 {
                step(&mut pace);
                assert!(
                    settles.contains(&pace.budget(true)),
                    "{} at {tokens_per_second}/s",
                    pace.budget(true)
                );
            }
            assert_eq!(pace.budget(false), 512);
        };
        check(10, 4..=4);
        check(1_000, 40..=116);
        check(1_000_000, 512..=512);
    }

    #[test]
    fn a_step_without_a_full_budget_does_not_raise_it() {
        let mut pace = Pace::new(Duration::from_millis(100), 512);
        let fast = Measured {
            took: Duration::from_millis(1),
            rows: 9,
            prompt_rows: 1,
            decoding: true,
        };
        pace.measure(fast);
        assert_eq!(pace.budget(true), 64);
        pace.measure(Measured {
            prompt_rows: 64,
            ..fast
        });
        assert_eq!(pace.budget(true), 80);
    }

    #[test]
    fn a_queue_is_estimated_by_the_measured_speed() {
        let mut pace = Pace::new(Duration::from_millis(100), 512);
        assert_eq!(pace.estimate(1_000), Duration::ZERO);
        pace.measure(Measured {
            took: Duration::from_secs(1),
            rows: 100,
            prompt_rows: 100,
            decoding: false,
        });
        assert_eq!(pace.estimate(1_000), Duration::from_secs(10));
    }
}

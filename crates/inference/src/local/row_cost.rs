//! The cost of one more token in a step: the slope of a line through the times of the last decode steps, by their
//! tokens.

use std::time::Duration;

/// Steps with more tokens aren't counted: they say little about a few tokens.
const ROWS_MAX: usize = 32;
/// The weight of a step, relative to the step after it.
const KEPT: f64 = 0.97;
/// Bounds of the cost, as a fraction of a step's fixed time. A token is never free, and a line through noise may say
/// anything.
const SHARES: std::ops::RangeInclusive<f64> = 0.02..=4.0;
/// The cost before anything was measured, and where all steps have the same number of tokens.
const SHARE_START: f64 = 1.0;
/// With a smaller variance of the number of tokens, no line can be drawn.
const VARIANCE_MIN: f64 = 0.25;

/// Weighted sums, the newest step with weight 1.
#[derive(Debug, Default)]
pub(crate) struct RowCost {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
}

impl RowCost {
    /// Records a step without prompt tokens.
    pub(crate) fn measure(&mut self, rows: usize, took: Duration) {
        if rows > ROWS_MAX {
            return;
        }
        let (rows, seconds) = (rows as f64, took.as_secs_f64());
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.seconds, seconds),
            (&mut self.rows_rows, rows * rows),
            (&mut self.rows_seconds, rows * seconds),
        ] {
            *sum = *sum * KEPT + value;
        }
    }

    /// The cost of one more token, as a fraction of the fixed time of a step.
    pub(crate) fn share(&self) -> f32 {
        let (rows, seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_rows / self.weight - rows * rows;
        if self.weight == 0.0 || variance < VARIANCE_MIN {
            return SHARE_START as f32;
        }
        let row = (self.rows_seconds / self.weight - rows * seconds) / variance;
        let fixed = seconds - row * rows;
        let share = if fixed > 0.0 { row / fixed } else { f64::MAX };
        share.clamp(*SHARES.start(), *SHARES.end()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_follows_the_steps() {
        let check = |rows: &[usize], milliseconds: fn(usize) -> u64, expected: f32| {
            let mut cost = RowCost::default();
            for &rows in rows.iter().cycle().take(200) {
                cost.measure(rows, Duration::from_millis(milliseconds(rows)));
            }
            let share = cost.share();
            assert!(
                (share - expected).abs() < 0.01,
                "{share} for {rows:?}, not {expected}"
            );
        };
        let start = SHARE_START as f32;
        check(&[], |_| 0, start);
        check(&[4], |_| 20, start);
        check(&[1, 4], |rows| 10 + 2 * rows as u64, 0.2);
        check(&[1, 2, 9, 3], |rows| 8 + 4 * rows as u64, 0.5);
        // Slopes beyond the bounds are noise.
        check(&[1, 4], |_| 20, 0.02);
        check(&[1, 4], |rows| 40 / rows as u64, 0.02);
        check(&[1, 4], |rows| 100 * rows as u64, 4.0);
        // Steps with many tokens aren't counted.
        check(
            &[1, 4, 200],
            |rows| 10 + 2 * rows as u64 + 1_000 * (rows as u64 / 100),
            0.2,
        );
    }
}

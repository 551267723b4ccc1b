//! How fast steps are: how many rows one may have while streams decode, and how long a queue will take.

use std::time::Duration;

use crate::scheduler::Room;

/// However slow a step is: with fewer, streams would take turns.
const ROOM_MIN: u32 = 32;
/// What a step may hold before anything was measured.
const ROOM_START: u32 = 64;
/// Weight of the newest step in the average speed.
const NEWEST: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Pace {
    target: Duration,
    rows: u32,
    /// Of prompts, however long a step takes.
    prompts_min: u32,
    /// Rows of a step that takes about as long as it may.
    room: u32,
    rows_per_second: Option<f64>,
}

/// A step that was computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) took: Duration,
    pub(crate) rows: u32,
    /// Whether somebody waited for its next token meanwhile.
    pub(crate) decoding: bool,
}

impl Pace {
    pub(crate) fn new(target: Duration, rows: u32, prompts_min: u32) -> Self {
        Pace {
            target,
            rows,
            prompts_min: prompts_min.min(rows),
            room: ROOM_START.min(rows),
            rows_per_second: None,
        }
    }

    /// What the next step may hold. With nobody decoding nobody is kept waiting.
    pub(crate) fn room(&self, decoding: bool) -> Room {
        Room {
            rows: if decoding { self.room } else { self.rows },
            prompts: self.prompts_min,
            row_cost: None,
        }
    }

    pub(crate) fn measure(&mut self, step: Measured) {
        let seconds = step.took.as_secs_f64().max(1e-6);
        let speed = f64::from(step.rows) / seconds;
        self.rows_per_second = Some(match self.rows_per_second {
            Some(average) => average + (speed - average) * NEWEST,
            None => speed,
        });
        if step.decoding {
            self.steer(step);
        }
    }

    /// A step that wasn't full says nothing against a fuller one.
    fn steer(&mut self, step: Measured) {
        let full = step.rows >= self.room;
        let room = if step.took > self.target {
            let share = self.target.as_secs_f64() / step.took.as_secs_f64();
            (f64::from(step.rows.min(self.room)) * share) as u32
        } else if full && step.took < self.target.mul_f64(0.8) {
            self.room + self.room.div_ceil(4)
        } else {
            return;
        };
        self.room = room.max(ROOM_MIN).min(self.rows);
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

    fn rows(pace: &Pace) -> u32 {
        pace.room(true).rows
    }

    #[test]
    fn the_room_follows_the_step_time() {
        let target = Duration::from_millis(100);
        let check = |rows_per_second: u32, settles: std::ops::RangeInclusive<u32>| {
            let mut pace = Pace::new(target, 512, 32);
            let step = |pace: &mut Pace| {
                let rows = rows(pace);
                let took = Duration::from_secs_f64(f64::from(rows) / f64::from(rows_per_second));
                pace.measure(Measured {
                    took,
                    rows,
                    decoding: true,
                });
            };
            (0..50).for_each(|_| step(&mut pace));
            for _ in 0..20 {
                step(&mut pace);
                let room = rows(&pace);
                assert!(settles.contains(&room), "{room} at {rows_per_second}/s");
            }
            assert_eq!(pace.room(false).rows, 512);
        };
        check(10, 32..=32);
        check(400, 35..=40);
        check(1_000, 80..=100);
        check(1_000_000, 512..=512);
    }

    #[test]
    fn a_step_that_was_not_full_does_not_raise_the_room() {
        let mut pace = Pace::new(Duration::from_millis(100), 512, 32);
        let fast = Measured {
            took: Duration::from_millis(1),
            rows: 63,
            decoding: true,
        };
        pace.measure(fast);
        assert_eq!(rows(&pace), 64);
        pace.measure(Measured { rows: 64, ..fast });
        assert_eq!(rows(&pace), 80);
        // Longer than it may: as many fewer.
        pace.measure(Measured {
            took: Duration::from_millis(110),
            rows: 80,
            decoding: true,
        });
        assert_eq!(rows(&pace), 72);
    }

    #[test]
    fn prompts_have_their_rows_however_slow_steps_are() {
        let check = |prompts_min: u32, most: u32, expected: u32| {
            let mut pace = Pace::new(Duration::from_millis(100), most, prompts_min);
            for _ in 0..50 {
                let rows = rows(&pace);
                let took = Duration::from_secs(10);
                pace.measure(Measured {
                    took,
                    rows,
                    decoding: true,
                });
            }
            assert_eq!(pace.room(true).prompts, expected);
            // Streams have theirs all the same.
            assert_eq!(rows(&pace), ROOM_MIN.min(most));
        };
        check(32, 128, 32);
        check(8, 128, 8);
        check(100, 128, 100);
        check(64, 16, 16);
    }

    #[test]
    fn a_queue_is_estimated_by_the_measured_speed() {
        let mut pace = Pace::new(Duration::from_millis(100), 512, 32);
        assert_eq!(pace.estimate(1_000), Duration::ZERO);
        pace.measure(Measured {
            took: Duration::from_secs(1),
            rows: 100,
            decoding: false,
        });
        assert_eq!(pace.estimate(1_000), Duration::from_secs(10));
    }
}

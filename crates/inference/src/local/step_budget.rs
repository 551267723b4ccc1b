//! The budget of a step, from the measured times of steps: how many tokens it may have while streams decode, how long
//! background prefill may run after it, and how long a queue will take.

use std::time::Duration;

use crate::scheduler::StepBudget;

/// The least decode tokens of a step, however slow it is: with fewer, streams would take turns.
const STREAMS_MIN: u32 = 32;
/// The least token budget of a step: a smaller one takes too long to grow again.
const ROWS_MIN: u32 = 8;
/// The most tokens of a step beside streams before such a step was measured.
const ROWS_START: u32 = 64;
/// The most inter-token targets that a step with streams is to take.
const TARGETS_MAX: f64 = 2.0;
/// The targets that the prompts of such a step are cut for: a little less, since a step may take a little longer than
/// the last one.
const TARGETS_AIMED: f64 = TARGETS_MAX - 0.25;
/// After a slow step, the next one has at least this fraction of its prompt tokens: one step says little.
const CUT_MOST: f64 = 0.75;
/// Prompt tokens that a step has in any case, or half as many as it has decode tokens if that is more: where decode
/// tokens alone take longer than the target, nothing is promised.
const PROMPTS_FLOOR: u32 = 4;
/// A step takes as long as a full tile of tokens anyway, so that prompts may fill the tile up; unless a tile takes
/// longer than this many targets: then short steps are kept as short as they can be.
const TILE_TARGETS_MAX: f64 = 6.0;
/// The most targets that a step takes if nothing waits for it: a request may come meanwhile. More tokens don't make
/// such a step any more efficient.
const LONGEST_TARGETS: f64 = 10.0;
/// The least tokens of such a step on a slow machine: with fewer, kernels are less efficient, and streams take turns.
const LONGEST_ROWS_MIN: u32 = 32;
/// The weight of the newest step in the average speed.
const NEWEST: f64 = 0.1;

/// A step and the background prefill after it take this many inter-token targets together: less than the two that are
/// promised, since the step may take longer than the last one did.
const TARGETS_WITH_BACKGROUND: f64 = 1.85;
/// Background prefill gets at least this fraction of the inter-token target, however slow decode steps are.
const BACKGROUND_PART_MIN: f64 = 0.25;

#[derive(Debug)]
pub(crate) struct BudgetPlanner {
    target: Duration,
    rows: u32,
    /// Tokens of a step that takes about as long as the target; `None` before a step with streams and prompts was
    /// measured.
    rows_at_target: Option<u32>,
    /// Prompt tokens that a step may have beyond `rows_at_target`, as long as it takes no more than [`TARGETS_MAX`].
    prompts: u32,
    /// The upper bound of `prompts`.
    prompts_most: u32,
    /// Tokens of a step that takes no longer than [`LONGEST_TARGETS`].
    longest: u32,
    /// Tokens of a kernel tile: with fewer, a step isn't shorter.
    tile: u32,
    /// The time that a step of `tile` tokens takes.
    tile_took: Duration,
    rows_per_second: Option<f64>,
}

/// A step that was computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) took: Duration,
    pub(crate) rows: u32,
    /// How many of `rows` are prompt tokens.
    pub(crate) prompt_rows: u32,
    /// Whether anything waited for the step: a stream for its next token, or an account for other accounts' tokens.
    pub(crate) awaited: bool,
}

impl BudgetPlanner {
    pub(crate) fn new(target: Duration, rows: u32, prompts_most: u32, tile: u32) -> Self {
        let prompts_most = prompts_most.min(rows);
        BudgetPlanner {
            target,
            rows,
            rows_at_target: None,
            prompts: prompts_most,
            prompts_most,
            longest: rows,
            tile,
            tile_took: Duration::ZERO,
            rows_per_second: None,
        }
    }

    /// The token budget of the next step, beside this many streams. Without streams, and with one account, no request
    /// waits for the step.
    pub(crate) fn budget(&self, streams: u32, several_accounts: bool) -> StepBudget {
        let rows = if streams > 0 || several_accounts {
            self.beside_others()
        } else {
            self.longest
        };
        StepBudget {
            rows,
            streams: rows.max(STREAMS_MIN),
            longest: self.longest.max(rows),
            prompts: self.prompts.max(self.rest_of_tile(streams)),
            row_cost: None,
        }
    }

    /// The token budget while background prefill is under way, which gets half of the time that prompts have beside
    /// streams.
    pub(crate) fn budget_beside_background(
        &self,
        streams: u32,
        several_accounts: bool,
    ) -> StepBudget {
        let budget = self.budget(streams, several_accounts);
        if streams == 0 {
            return budget;
        }
        StepBudget {
            rows: (budget.rows / 2).max(1),
            prompts: (budget.prompts / 2).max(1),
            ..budget
        }
    }

    fn rest_of_tile(&self, streams: u32) -> u32 {
        if self.tile_took > self.target.mul_f64(TILE_TARGETS_MAX) {
            return 0;
        }
        self.tile.saturating_sub(streams).min(self.rows)
    }

    fn beside_others(&self) -> u32 {
        let rows = self.rows_at_target.unwrap_or_else(|| {
            let speed = self.rows_per_second.unwrap_or(f64::INFINITY);
            ROWS_START.min((speed * self.target.as_secs_f64()) as u32)
        });
        rows.max(ROWS_MIN).min(self.rows)
    }

    pub(crate) fn measure(&mut self, step: Measured) {
        let seconds = step.took.as_secs_f64().max(1e-6);
        let speed = f64::from(step.rows) / seconds;
        self.rows_per_second = Some(match self.rows_per_second {
            Some(average) => average + (speed - average) * NEWEST,
            None => speed,
        });
        if step.rows >= self.tile {
            self.tile_took = step
                .took
                .mul_f64(f64::from(self.tile) / f64::from(step.rows));
        }
        self.bound(step);
        if step.awaited {
            self.steer(step);
            self.keep_promise(step);
        }
    }

    /// Adjusts `longest`, so that a step stays below [`LONGEST_TARGETS`] even if no stream waits for it.
    fn bound(&mut self, step: Measured) {
        let limit = self.target.mul_f64(LONGEST_TARGETS);
        if step.took > limit {
            let share = limit.as_secs_f64() / step.took.as_secs_f64();
            self.longest = (f64::from(step.rows) * share) as u32;
        } else if step.rows >= self.longest && step.took < limit.mul_f64(0.8) {
            self.longest += self.longest.div_ceil(4);
        }
        self.longest = self.longest.max(LONGEST_ROWS_MIN).min(self.rows);
    }

    /// Adjusts `rows_at_target` to the target. It grows only after a full step: another one says nothing about more tokens.
    fn steer(&mut self, step: Measured) {
        let now = self.beside_others();
        let full = step.rows >= now;
        let rows = if step.took > self.target {
            let share = self.target.as_secs_f64() / step.took.as_secs_f64();
            (f64::from(step.rows.min(now)) * share) as u32
        } else if full && step.took < self.target.mul_f64(0.8) {
            now + now.div_ceil(4)
        } else {
            return;
        };
        self.rows_at_target = Some(rows.max(ROWS_MIN).min(self.rows));
    }

    /// Adjusts `prompts`, so that no stream waits for longer than [`TARGETS_MAX`].
    fn keep_promise(&mut self, step: Measured) {
        let aimed = self.target.mul_f64(TARGETS_AIMED);
        let share = aimed.as_secs_f64() / step.took.as_secs_f64().max(1e-6);
        if step.took > aimed && step.prompt_rows > 0 {
            let rows = (f64::from(step.rows) * share) as u32;
            let streams = step.rows - step.prompt_rows;
            let floor = PROMPTS_FLOOR.max(streams / 2).min(self.prompts_most);
            let least = (f64::from(self.prompts) * CUT_MOST) as u32;
            let prompts = rows.saturating_sub(streams).min(self.prompts);
            self.prompts = prompts.max(least).max(floor);
        } else if share > 1.25 && step.prompt_rows >= self.prompts {
            self.prompts = (self.prompts + self.prompts.div_ceil(4)).min(self.prompts_most);
        }
    }

    /// The expected time for this many tokens; zero before anything was measured.
    pub(crate) fn estimate(&self, tokens: u64) -> Duration {
        self.rows_per_second.map_or(Duration::ZERO, |speed| {
            Duration::try_from_secs_f64(tokens as f64 / speed).unwrap_or(Duration::MAX)
        })
    }
}

/// How long background prefill runs now, after a step that took `step` (zero if there was none); `streams` if streams
/// wait.
pub(crate) fn background_time(target: Duration, step: Duration, streams: bool) -> Duration {
    if !streams {
        // No stream waits: as long as the step took, which computes prompts of other accounts, but at least one target.
        return target.max(step);
    }
    let left = target.mul_f64(TARGETS_WITH_BACKGROUND).saturating_sub(step);
    left.max(target.mul_f64(BACKGROUND_PART_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    /// A machine on which each token takes as long as the one before it.
    fn machine(rows_per_second: u32) -> impl Fn(u32) -> Duration {
        move |rows| Duration::from_secs_f64(f64::from(rows) / f64::from(rows_per_second))
    }

    /// Runs full steps of a prompt beside this many streams. Returns the tokens of the last step, and how long it took.
    fn run(
        planner: &mut BudgetPlanner,
        steps: u32,
        streams: u32,
        time: impl Fn(u32) -> Duration,
    ) -> (u32, Duration) {
        let mut last = (0, Duration::ZERO);
        for _ in 0..steps {
            let budget = planner.budget(streams, false);
            let prompt_rows = budget.rows.saturating_sub(streams).max(budget.prompts);
            let rows = (streams + prompt_rows).min(planner.rows);
            last = (rows, time(rows));
            planner.measure(Measured {
                took: time(rows),
                rows,
                prompt_rows,
                awaited: true,
            });
        }
        last
    }

    fn planner(rows: u32, prompts: u32) -> BudgetPlanner {
        BudgetPlanner::new(TARGET, rows, prompts, 1)
    }

    #[test]
    fn the_budget_follows_the_step_time() {
        let check = |rows_per_second: u32, settles: std::ops::RangeInclusive<u32>, longest: u32| {
            let mut planner = planner(512, 4);
            run(&mut planner, 50, 1, machine(rows_per_second));
            for _ in 0..20 {
                run(&mut planner, 1, 1, machine(rows_per_second));
                let budget = planner.budget(4, false).rows;
                assert!(settles.contains(&budget), "{budget} at {rows_per_second}/s");
            }
            assert_eq!(planner.budget(0, false).rows, longest);
        };
        check(10, 8..=8, 32);
        check(400, 32..=40, 512);
        check(1_000, 80..=100, 512);
        check(1_000_000, 512..=512, 512);
    }

    #[test]
    fn a_step_that_was_not_full_does_not_raise_the_budget() {
        let mut planner = planner(512, 32);
        let fast = Measured {
            took: Duration::from_millis(1),
            rows: 63,
            prompt_rows: 63,
            awaited: true,
        };
        planner.measure(fast);
        assert_eq!(planner.budget(4, false).rows, 64);
        planner.measure(Measured { rows: 64, ..fast });
        assert_eq!(planner.budget(4, false).rows, 80);
        // A step that takes 10 % too long: the budget shrinks in proportion.
        planner.measure(Measured {
            took: Duration::from_millis(110),
            rows: 80,
            ..fast
        });
        assert_eq!(planner.budget(4, false).rows, 72);
    }

    #[test]
    fn what_the_first_prompt_beside_streams_may_have_follows_from_the_speed() {
        let check = |rows_per_second: u32, expected: u32| {
            let mut planner = planner(512, 32);
            let (rows, awaited) = (128, false);
            planner.measure(Measured {
                took: machine(rows_per_second)(rows),
                rows,
                prompt_rows: rows,
                awaited,
            });
            assert_eq!(
                planner.budget(4, false).rows,
                expected,
                "{rows_per_second}/s"
            );
        };
        check(100, 10);
        check(500, 50);
        check(5_000, 64);
    }

    #[test]
    fn prompts_have_their_rows_as_long_as_no_stream_is_silent_for_too_long() {
        let check = |rows_per_second: u32, prompts: u32, most: u32, settles: u32| {
            let mut planner = planner(most, prompts);
            let limit = TARGET.mul_f64(TARGETS_MAX);
            let time = machine(rows_per_second);
            run(&mut planner, 50, 4, &time);
            for _ in 0..20 {
                let (rows, took) = run(&mut planner, 1, 4, &time);
                assert!(took <= limit || rows <= 8, "{took:?} for {rows} rows");
            }
            let got = planner.budget(4, false).prompts;
            assert_eq!(got, settles, "{rows_per_second}/s, {prompts} of {most}");
        };
        // 36 tokens are done in time: prompts have as many as were asked for.
        check(250, 32, 128, 32);
        check(100_000, 32, 128, 32);
        check(1_000, 100, 128, 100);
        check(1_000, 64, 16, 16);
        // 17 tokens take as long as a step is cut for, and four of them are the streams'.
        check(100, 32, 128, 13);
        check(100, 8, 128, 8);
        // However slow the machine is, a prompt advances.
        check(10, 32, 128, 4);
        check(10, 3, 128, 3);
    }

    #[test]
    fn prompts_have_their_rows_again_when_steps_are_fast_again() {
        let mut planner = planner(128, 32);
        run(&mut planner, 50, 4, machine(50));
        assert_eq!(planner.budget(4, false).prompts, 4);
        run(&mut planner, 50, 4, machine(1_000));
        assert_eq!(planner.budget(4, false).prompts, 32);
    }

    #[test]
    fn many_slow_streams_leave_prompts_half_as_many_rows() {
        let mut planner = planner(128, 32);
        run(&mut planner, 50, 40, machine(100));
        let budget = planner.budget(4, false);
        assert_eq!((budget.streams, budget.prompts), (32, 20));
    }

    #[test]
    fn a_prompt_has_the_rest_of_a_tile_unless_that_takes_far_too_long() {
        let check = |tile_took_ms: u64, prompts: u32| {
            let mut planner = BudgetPlanner::new(TARGET, 512, 32, 64);
            assert_eq!(planner.budget(4, false).prompts, 60);
            // Fewer tokens take as long as a tile.
            let time = |rows: u32| Duration::from_millis(tile_took_ms) * rows.max(64) / 64;
            run(&mut planner, 50, 4, time);
            assert_eq!(
                planner.budget(4, false).prompts,
                prompts,
                "{tile_took_ms} ms"
            );
            assert_eq!(
                planner.budget(100, false).prompts,
                planner.budget(64, false).prompts
            );
        };
        check(50, 60);
        check(150, 60);
        check(590, 60);
        check(610, 4);
        check(4_000, 4);
    }

    #[test]
    fn a_step_that_nobody_waits_for_has_an_end_too() {
        let check = |rows_per_second: u32, settles: std::ops::RangeInclusive<u32>| {
            let mut planner = planner(512, 32);
            for _ in 0..50 {
                let rows = planner.budget(0, false).rows;
                planner.measure(Measured {
                    took: machine(rows_per_second)(rows),
                    rows,
                    prompt_rows: rows,
                    awaited: false,
                });
            }
            let rows = planner.budget(0, false).rows;
            assert!(settles.contains(&rows), "{rows} at {rows_per_second}/s");
        };
        check(10_000, 512..=512);
        check(300, 230..=300);
        check(10, 32..=32);
    }

    #[test]
    fn beside_another_account_a_step_is_as_short_as_beside_streams() {
        let mut planner = planner(512, 32);
        run(&mut planner, 50, 4, machine(1_000));
        assert_eq!(planner.budget(0, true).rows, planner.budget(4, false).rows);
        assert_eq!(planner.budget(0, false).rows, 512);
    }

    #[test]
    fn a_queue_is_estimated_by_the_measured_speed() {
        let mut planner = planner(512, 32);
        assert_eq!(planner.estimate(1_000), Duration::ZERO);
        planner.measure(Measured {
            took: Duration::from_secs(1),
            rows: 100,
            prompt_rows: 100,
            awaited: false,
        });
        assert_eq!(planner.estimate(1_000), Duration::from_secs(10));
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn background_prefill_has_the_time_that_a_step_leaves() {
        let check = |step: u64, streams: bool, expected: u64| {
            assert_eq!(
                background_time(ms(100), ms(step), streams),
                ms(expected),
                "{step} ms"
            );
        };
        check(0, true, 185);
        check(30, true, 155);
        check(170, true, 25);
        check(900, true, 25);
        check(0, false, 100);
        check(900, false, 900);
    }
}

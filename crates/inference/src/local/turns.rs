//! How long background prefill may run between two steps, so that no stream waits longer than it may.

use std::time::Duration;

/// A step and the background prefill after it take this many inter-token targets together: less than the two that are
/// promised, since the step may take longer than the last one did.
const TARGETS: f64 = 1.85;
/// Background prefill gets at least this fraction of the inter-token target, however slow decode steps are.
const PART_MIN: f64 = 0.25;

/// How long background prefill runs now, after a step that took `step` (zero if there was none); `streams` if streams
/// wait.
pub(crate) fn next(target: Duration, step: Duration, streams: bool) -> Duration {
    if !streams {
        // No stream waits: as long as the step took, which computes prompts of other accounts, but at least one target.
        return target.max(step);
    }
    let left = target.mul_f64(TARGETS).saturating_sub(step);
    left.max(target.mul_f64(PART_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_turn_is_what_a_step_leaves() {
        let check = |step: u64, streams: bool, expected: u64| {
            assert_eq!(next(ms(100), ms(step), streams), ms(expected), "{step} ms");
        };
        check(0, true, 185);
        check(30, true, 155);
        check(170, true, 25);
        check(900, true, 25);
        check(0, false, 100);
        check(900, false, 900);
    }
}

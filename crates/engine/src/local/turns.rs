//! How long what is computed aside may go on between two steps, so that no stream is silent for longer than it may be.

use std::time::Duration;

/// A step and what follows it are to take so many targets together: less than two, which is what is promised, since the step may take
/// longer than the last one did.
const TARGETS: f64 = 1.85;
/// However long steps take, it gets on for this part of a target.
const PART_MIN: f64 = 0.25;

/// The next turn, after a step that took so long, if there was one, and with streams that wait or without.
pub(crate) fn next(target: Duration, step: Duration, streams: bool) -> Duration {
    if !streams {
        // Others' prompts have as much.
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

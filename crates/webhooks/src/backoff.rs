//! When to try a failed delivery again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(3600);

/// The delay before the next attempt. Twice as long after each attempt, from 5 seconds up to an hour; randomly between
/// half of that and all of it, so that deliveries that failed together aren't tried together.
pub(crate) fn delay(attempts: u32, random: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let whole = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let half_ms = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX);
    whole / 2 + Duration::from_millis(random % half_ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_an_hour() {
        let check = |attempts: u32, whole_ms: u64| {
            let of = |random| u64::try_from(delay(attempts, random).as_millis()).unwrap();
            let half = whole_ms / 2;
            assert_eq!([of(0), of(half - 1), of(half)], [half, whole_ms - 1, half]);
            assert!((half..whole_ms).contains(&of(u64::MAX)), "{attempts}");
        };
        for (attempts, whole_ms) in [
            (0, 5_000),
            (1, 5_000),
            (2, 10_000),
            (3, 20_000),
            (10, 2_560_000),
            (11, 3_600_000),
            (40, 3_600_000),
            (u32::MAX, 3_600_000),
        ] {
            check(attempts, whole_ms);
        }
    }
}

//! The books' time: the system's clock, as far as it can be trusted.
//!
//! The database keeps the newest time that was seen. A system clock that is more than a week ([`CLOCK_GAP_MAX`]) away
//! from it may be wrong: set by hand, reset by an empty battery, or a test's. Acting on it would destroy data, so until
//! an operator accepts the clock ([`Accept`]) no usage is pruned, no event given up and no promo credit expired. A
//! clock that jumps while the process runs is surely wrong, and the time goes on from where it was.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::db::{Connection, Readers, StoreError, values};
use crate::writer::{Operation, TxResult};

/// How far the system's clock may be from the newest time in the books.
pub const CLOCK_GAP_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
/// By how much a time must be newer than the written one to be written down.
const NOTED_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// The newest time in the books beside the system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// The newest time that was seen while the clock could be trusted.
    pub newest: Timestamp,
    /// The system's clock.
    pub system: Timestamp,
    /// Whether the two are within a week of each other.
    pub trusted: bool,
}

pub(crate) fn near(a: Timestamp, b: Timestamp) -> bool {
    a.duration_since(b).abs() <= CLOCK_GAP_MAX
}

/// The time of this process, kept going by the monotonic clock where the system's clock jumps.
#[derive(Debug)]
pub(crate) struct BooksClock(Mutex<Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    newest: Timestamp,
    /// The last time that was believed, and the monotonic clock at that moment.
    right: (Timestamp, Instant),
}

impl BooksClock {
    /// A system clock more than a week behind the books is surely wrong. One that is ahead is believed: the server may
    /// have been off for that long.
    pub(crate) fn new(newest: Timestamp, system: Timestamp, at: Instant) -> Self {
        let behind = system < newest && !near(system, newest);
        let right = if behind { newest } else { system };
        BooksClock(Mutex::new(Known {
            newest,
            right: (right, at),
        }))
    }

    /// The time to use: `system`, unless it is more than a week away both from the newest time in the books and from
    /// the time that the monotonic clock makes it.
    pub(crate) fn read(&self, system: Timestamp, at: Instant) -> Timestamp {
        let mut known = self.known();
        let (right, then) = known.right;
        let passed = at.saturating_duration_since(then);
        let expected = right.saturating_add(passed).unwrap_or(Timestamp::MAX);
        if !near(system, known.newest) && !near(system, expected) {
            return expected;
        }
        known.right = (system, at);
        system
    }

    pub(crate) fn newest(&self) -> Timestamp {
        self.known().newest
    }

    /// Takes over the newest time from the database: another node has written a newer one, or an operator has accepted
    /// a clock.
    pub(crate) fn learn(&self, newest: Timestamp) {
        self.known().newest = newest;
    }

    /// The time to write down when the process ends, if it is trusted and newer than what is written.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        let known = self.known();
        let (right, _) = known.right;
        (near(right, known.newest) && right > known.newest).then_some(right)
    }

    /// The time to write down now, if `now` is trusted and enough newer than what is written.
    pub(crate) fn to_note(&self, now: Timestamp) -> Option<Timestamp> {
        let newest = self.newest();
        let due = near(now, newest) && now.duration_since(newest) >= NOTED_EVERY;
        due.then_some(now)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time by which things expire: `now`, or the newest time in the books if `now` is too far from it.
pub(crate) async fn lapse(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let row = connection.row("SELECT newest FROM clock", &[]).await?;
    let newest = row.map_or(Ok(now), |row| row.time(0))?;
    Ok(lapse_by(newest, now))
}

/// The same for the newest time that was read from the books.
pub(crate) fn lapse_by(newest: Timestamp, now: Timestamp) -> Timestamp {
    if near(now, newest) { now } else { newest }
}

/// Whether `now` can be trusted for acts that can't be undone.
pub(crate) async fn is_trusted(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(lapse(connection, now).await? == now)
}

/// The newest time in a database, set to `now` if it has none yet.
pub(crate) async fn open(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let sql = "INSERT INTO clock (one, newest) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
    connection.execute(sql, values![now]).await?;
    let row = connection.row("SELECT newest FROM clock", &[]).await?;
    row.ok_or_else(|| StoreError::contradiction("the clock has no row"))?
        .time(0)
}

pub(crate) async fn newest(readers: &Readers) -> Result<Timestamp, StoreError> {
    let row = readers.row("SELECT newest FROM clock", &[]).await?;
    row.ok_or_else(|| StoreError::contradiction("the clock has no row"))?
        .time(0)
}

/// Writes a newer time down. Never replaces it by an older one, as several nodes write it.
pub(crate) async fn note(connection: &mut Connection, newest: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE clock SET newest = $1 WHERE newest < $1";
    connection.execute(sql, values![newest]).await
}

/// Writes down the newest time that a process has seen, at its end.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) newest: Timestamp,
}

impl Operation for Note {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
        note(connection, self.newest).await.map(Ok)
    }

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

/// Takes the system's clock for right, on an operator's word (`weir clock accept`).
#[derive(Debug)]
pub(crate) struct Accept {
    pub(crate) now: Timestamp,
}

impl Operation for Accept {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
        let sql = "UPDATE clock SET newest = $1";
        connection.execute(sql, values![self.now]).await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_clock_that_jumps_is_not_followed() {
        // Newest time, clock at the start, then (seconds passed, clock, the time to go by), all in seconds from noon.
        let check = |newest: i64, start: i64, rows: &[(u64, i64, i64)]| {
            let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
            let begin = Instant::now();
            let clock = BooksClock::new(at(newest), at(start), begin);
            for &(passed, system, expected) in rows {
                let now = clock.read(at(system), begin + Duration::from_secs(passed));
                assert_eq!(now, at(expected), "{passed} s later, the clock at {system}");
            }
        };
        // An hour either way, or some days: the system's clock is followed.
        check(
            0,
            0,
            &[(1, 3600, 3600), (2, -3600, -3600), (3, 6 * DAY, 6 * DAY)],
        );
        // Years ahead and back, and right again.
        check(
            0,
            0,
            &[(5, 3650 * DAY, 5), (9, 3650 * DAY + 4, 9), (10, 10, 10)],
        );
        check(0, 0, &[(5, -400 * DAY, 5), (6, 6, 6)]);
        // The clock was wrong at the start, behind the books; then it was set right.
        check(0, -400 * DAY, &[(5, -400 * DAY + 5, 5), (6, 60, 60)]);
        // Nothing was served for a month.
        check(0, 30 * DAY, &[(5, 30 * DAY + 5, 30 * DAY + 5)]);
        // A clock that was wrong at the start, but ahead of the books, is believed; then it is set right.
        check(
            0,
            400 * DAY,
            &[(5, 400 * DAY + 5, 400 * DAY + 5), (6, 6, 6)],
        );
    }

    #[test]
    fn only_times_that_can_be_trusted_are_noted() {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        let clock = BooksClock::new(at(0), at(0), Instant::now());
        let check = |second: i64, noted: bool| {
            assert_eq!(clock.to_note(at(second)).is_some(), noted, "{second}");
        };
        check(-1, false);
        check(59, false);
        check(60, true);
        check(7 * DAY, true);
        check(7 * DAY + 1, false);
    }
}

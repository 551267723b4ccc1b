//! The books' time: the system's clock, as far as it can be trusted.
//!
//! The books know the newest time that they have seen. A system clock that is more than a week away from it may be
//! wrong: set by hand, reset by an empty battery, or a test's. Acting on it would destroy what can't be brought back, so
//! until an operator accepts it ([`Accept`]) nothing is pruned, given up or expired. A clock that jumps while the process
//! runs is surely wrong, and the time goes on from where it was.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::Accounts;
use crate::db::{Connection, Readers, StoreError, values};
use crate::writer::{Operation, Written};

/// How far the clock may be from the newest time in the books.
pub const CLOCK_GAP_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much newer a time is before it is written down.
const NOTED_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// What the books know of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockState {
    /// The newest time that was seen while the clock could be trusted.
    pub newest: Timestamp,
    /// The system's clock.
    pub system: Timestamp,
    /// The two are within a week of each other.
    pub trusted: bool,
}

fn near(a: Timestamp, b: Timestamp) -> bool {
    a.duration_since(b).abs() <= CLOCK_GAP_MAX
}

/// The time of this process, kept going by the monotonic clock where the system's clock jumps.
#[derive(Debug)]
pub(crate) struct BooksClock(Mutex<Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    newest: Timestamp,
    /// A time that was right, and when.
    right: (Timestamp, Instant),
}

impl BooksClock {
    /// A clock that is behind the books is surely wrong. One that is ahead may be right, where nothing was served for
    /// some time.
    pub(crate) fn new(newest: Timestamp, system: Timestamp, at: Instant) -> Self {
        let behind = system < newest && !near(system, newest);
        let right = if behind { newest } else { system };
        BooksClock(Mutex::new(Known {
            newest,
            right: (right, at),
        }))
    }

    /// The time to go by.
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

    /// What the database says now: another node has gone on, or an operator has accepted a clock.
    pub(crate) fn learn(&self, newest: Timestamp) {
        self.known().newest = newest;
    }

    /// The newest time to write down at the end, if it is newer than what is written.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        let known = self.known();
        let (right, _) = known.right;
        (near(right, known.newest) && right > known.newest).then_some(right)
    }

    /// The newest time to write down, if `now` is enough newer than what is written.
    pub(crate) fn to_note(&self, now: Timestamp) -> Option<Timestamp> {
        let newest = self.newest();
        let due = near(now, newest) && now.duration_since(newest) >= NOTED_EVERY;
        due.then_some(now)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time by which things expire: `now`, unless that is too far from the newest time in the books.
pub(crate) async fn lapse(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<Timestamp, StoreError> {
    let row = connection.row("SELECT newest FROM clock", &[]).await?;
    let newest = row.map_or(Ok(now), |row| row.time(0))?;
    Ok(if near(now, newest) { now } else { newest })
}

/// Whether what can't be brought back may be done by this time.
pub(crate) async fn is_trusted(
    connection: &mut Connection,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(lapse(connection, now).await? == now)
}

/// The newest time of a database; `now` for one that has none yet.
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

/// Writes a newer time down. Never an older one: several nodes do it.
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

    async fn apply(&self, connection: &mut Connection) -> Written<(), Infallible> {
        note(connection, self.newest).await.map(Ok)
    }

    fn answer(self, outcome: Written<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

/// An operator says that the clock is right.
#[derive(Debug)]
struct Accept {
    now: Timestamp,
}

impl Operation for Accept {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> Written<(), Infallible> {
        let sql = "UPDATE clock SET newest = $1";
        connection.execute(sql, values![self.now]).await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: Written<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

impl Accounts {
    /// The time to go by, where the system's clock says `system`.
    pub fn time(&self, system: Timestamp) -> Timestamp {
        let now = self.0.clock.read(system, Instant::now());
        if let Some(newest) = self.0.clock.to_note(now) {
            self.0.notices.newest(newest);
        }
        now
    }

    /// Whether the system's clock can be trusted, by what the database says now.
    pub async fn clock(&self, system: Timestamp) -> Result<ClockState, StoreError> {
        let newest = newest(&self.0.readers).await?;
        self.0.clock.learn(newest);
        Ok(ClockState {
            newest,
            system,
            trusted: near(system, newest),
        })
    }

    /// From now on the system's clock is trusted, however far it is from what the books have seen. A running server
    /// goes by it within a second.
    pub async fn accept_clock(&self, system: Timestamp) -> Result<(), StoreError> {
        self.0.writer.write(Accept { now: system }).await?;
        self.0.clock.learn(system);
        Ok(())
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
        // An hour either way, a change of the clock by days: as the system says.
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
        // The clock was wrong at the start, behind the books; then somebody set it.
        check(0, -400 * DAY, &[(5, -400 * DAY + 5, 5), (6, 60, 60)]);
        // Nothing was served for a month.
        check(0, 30 * DAY, &[(5, 30 * DAY + 5, 30 * DAY + 5)]);
        // It was wrong at the start, ahead of the books, and nobody can tell; then it is right.
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

//! Admission of grammars to be compiled: a few at once, one of each account, and a limit on each account's processor
//! time.
//! Masks that take unusually long are counted against the same share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::budget::COMPILE_STEPS_MAX;

/// Settings of the admission of grammars; keys of an engine in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Grammars that are compiled at the same time, of all accounts together.
    pub at_once: usize,
    /// Limit on the grammars of one account that wait.
    pub waiting_max: usize,
    /// Processor time that an account's compilations and long masks may use in a burst. Approximate: compilations are counted in steps of about a
    /// microsecond.
    pub burst: Duration,
    /// Processor time that an account gets back per second.
    pub per_second: Duration,
}

impl Default for AdmissionOptions {
    fn default() -> Self {
        AdmissionOptions {
            at_once: std::thread::available_parallelism()
                .map_or(1, |cores| (cores.get() / 2).max(1)),
            waiting_max: COMPILES_WAITING_MAX,
            burst: COMPILE_BURST,
            per_second: COMPILE_PER_SECOND,
        }
    }
}

/// Default limit on the grammars of one account that wait.
pub const COMPILES_WAITING_MAX: usize = 16;
/// Default burst: ten grammars that each take the most work that is allowed.
pub const COMPILE_BURST: Duration = Duration::from_micros(10 * COMPILE_STEPS_MAX);
/// Default per second: a fifth of the most work that one grammar may take.
pub const COMPILE_PER_SECOND: Duration = Duration::from_micros(COMPILE_STEPS_MAX / 5);

/// Processor time that any mask may take: ordinary masks take a tenth of it, and a step of a small model takes longer.
/// What a mask takes beyond it is the account's debt.
pub const MASK_TIME_FREE: Duration = Duration::from_millis(2);

/// Steps that every grammar costs in addition to those that are counted.
const GRAMMAR_STEPS: u64 = 2_000;
/// Above this number of accounts, those that owe nothing and have no grammar waiting are removed.
const ACCOUNTS_MAX: usize = 4_096;

/// The account has used its share of time, or too many of its grammars wait. It may retry after about this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAdmitted {
    pub retry_after: Duration,
}

/// The account's masks took so much time that its running requests may have no more long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskTimeIsSpent;

/// Decides which account's grammar is compiled next.
#[derive(Debug)]
pub struct Admission {
    options: AdmissionOptions,
    slots: Arc<Semaphore>,
    accounts: Mutex<HashMap<Arc<str>, Account>>,
}

#[derive(Debug)]
struct Account {
    turn: Arc<Semaphore>,
    waiting: usize,
    /// Steps of work done that time hasn't paid off yet.
    owed_steps: u64,
    /// The same of masks alone, which refuses grammars that are kept compiled, too.
    owed_mask_steps: u64,
    at: Instant,
}

/// Permission to compile one grammar, until it is dropped.
#[derive(Debug)]
pub struct CompilePermit {
    _slot: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(options: AdmissionOptions) -> Self {
        Admission {
            options,
            slots: Arc::new(Semaphore::new(options.at_once)),
            accounts: Mutex::new(HashMap::new()),
        }
    }

    /// Waits until the account may compile a grammar. Fails at once if the account has used its share of time or has too
    /// many grammars waiting. Dropping the future leaves the queue.
    pub async fn admit(
        &self,
        account: &Arc<str>,
        now: Instant,
    ) -> Result<CompilePermit, NotAdmitted> {
        let turn = self.enqueue(account, now)?;
        let waiting = Waiting {
            admission: self,
            account: Arc::clone(account),
        };
        // The account's own turn comes first, so that only one grammar of an account waits for a slot.
        let turn = turn.acquire_owned().await;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        drop(waiting);
        match (turn, slot) {
            (Ok(turn), Ok(slot)) => Ok(CompilePermit {
                _slot: slot,
                _turn: turn,
            }),
            // Unreachable: the semaphores are never closed.
            _ => Err(NotAdmitted {
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Charges an account for a compiled grammar: the counted steps and the fixed cost.
    pub fn charge(&self, account: &Arc<str>, steps: u64, now: Instant) {
        let mut accounts = self.lock();
        let account = self.account(&mut accounts, account, now);
        account.owed_steps = account
            .owed_steps
            .saturating_add(steps.saturating_add(GRAMMAR_STEPS));
    }

    /// Whether an account may use a grammar that is kept compiled, which costs its masks alone.
    pub fn admit_kept(&self, account: &Arc<str>, now: Instant) -> Result<(), NotAdmitted> {
        let mut accounts = self.lock();
        let owed = self.account(&mut accounts, account, now).owed_mask_steps;
        self.within_burst(owed)
    }

    /// Counts the processor time of a mask. Where a mask takes long, and the account already owes as much for masks as would refuse
    /// its next request, and as much again, the request ends.
    pub fn charge_mask(
        &self,
        account: &Arc<str>,
        took: Duration,
        now: Instant,
    ) -> Result<(), MaskTimeIsSpent> {
        let long = steps(took.saturating_sub(MASK_TIME_FREE));
        if long == 0 {
            return Ok(());
        }
        let mut accounts = self.lock();
        let account = self.account(&mut accounts, account, now);
        account.owed_steps = account.owed_steps.saturating_add(long);
        account.owed_mask_steps = account.owed_mask_steps.saturating_add(long);
        match account.owed_mask_steps > steps(self.options.burst).saturating_mul(2) {
            true => Err(MaskTimeIsSpent),
            false => Ok(()),
        }
    }

    fn within_burst(&self, owed_steps: u64) -> Result<(), NotAdmitted> {
        let options = &self.options;
        match owed_steps.saturating_sub(steps(options.burst)) {
            0 => Ok(()),
            over => Err(NotAdmitted {
                retry_after: Duration::from_secs(over.div_ceil(steps(options.per_second).max(1))),
            }),
        }
    }

    fn enqueue(&self, name: &Arc<str>, now: Instant) -> Result<Arc<Semaphore>, NotAdmitted> {
        let mut accounts = self.lock();
        let account = self.account(&mut accounts, name, now);
        self.within_burst(account.owed_steps)?;
        if account.waiting >= self.options.waiting_max {
            return Err(NotAdmitted {
                retry_after: Duration::from_secs(1),
            });
        }
        account.waiting += 1;
        Ok(Arc::clone(&account.turn))
    }

    /// Returns the account, after reducing its debt by the time that has passed.
    fn account<'a>(
        &self,
        accounts: &'a mut HashMap<Arc<str>, Account>,
        name: &Arc<str>,
        now: Instant,
    ) -> &'a mut Account {
        if accounts.len() >= ACCOUNTS_MAX && !accounts.contains_key(name) {
            let per_second = self.options.per_second;
            accounts.retain(|_, account| account.waiting > 0 || account.pay(now, per_second) > 0);
        }
        let account = accounts.entry(Arc::clone(name)).or_insert_with(|| Account {
            turn: Arc::new(Semaphore::new(1)),
            waiting: 0,
            owed_steps: 0,
            owed_mask_steps: 0,
            at: now,
        });
        account.pay(now, self.options.per_second);
        account
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// Takes off what time has paid since the last look; what is still owed.
    fn pay(&mut self, now: Instant, per_second: Duration) -> u64 {
        let passed = now.saturating_duration_since(self.at).as_micros();
        let paid = passed.saturating_mul(per_second.as_micros()) / 1_000_000;
        let paid = u64::try_from(paid).unwrap_or(u64::MAX);
        self.owed_steps = self.owed_steps.saturating_sub(paid);
        self.owed_mask_steps = self.owed_mask_steps.saturating_sub(paid);
        self.at = self.at.max(now);
        self.owed_steps
    }
}

/// Converts processor time to steps: a step takes about a microsecond.
fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A grammar's place in its account's queue. Dropping it leaves the queue.
struct Waiting<'a> {
    admission: &'a Admission,
    account: Arc<str>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.admission.lock().get_mut(&self.account) {
            account.waiting = account.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn admission() -> Admission {
        Admission::new(AdmissionOptions {
            at_once: 2,
            waiting_max: 3,
            burst: Duration::from_millis(10),
            per_second: Duration::from_millis(1),
        })
    }

    #[tokio::test]
    async fn one_of_an_account_and_a_few_at_once() {
        let admission = admission();
        let (a, b, c): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "c".into());
        let now = Instant::now();
        let first = admission.admit(&a, now).await.unwrap();
        assert!(
            admission.admit(&a, now).now_or_never().is_none(),
            "one of an account"
        );
        let other = admission.admit(&b, now).await.unwrap();
        assert!(
            admission.admit(&c, now).now_or_never().is_none(),
            "two at once"
        );
        drop(other);
        assert!(admission.admit(&c, now).now_or_never().is_some());
        drop(first);
        assert!(
            admission.admit(&a, now).now_or_never().is_some(),
            "whoever gave up isn't in the way"
        );
    }

    #[tokio::test]
    async fn lines_are_short_and_time_pays_off() {
        let admission = admission();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let now = Instant::now();
        let running = admission.admit(&a, now).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(admission.admit(&a, now))).collect();
        for waiting in &mut waiting {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(
            admission.admit(&a, now).now_or_never().unwrap().is_err(),
            "the line is full"
        );
        drop(waiting);
        drop(running);
        admission.charge(&a, 10_000, now);
        let refused = admission
            .admit(&a, now)
            .now_or_never()
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(2));
        assert!(
            admission.admit(&b, now).now_or_never().unwrap().is_ok(),
            "another account doesn't pay"
        );
        assert!(
            admission
                .admit(&a, now + Duration::from_secs(2))
                .now_or_never()
                .unwrap()
                .is_ok()
        );
    }

    #[tokio::test]
    async fn long_masks_are_counted_and_ordinary_ones_are_free() {
        let admission = admission();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let now = Instant::now();
        let charge = |micros| admission.charge_mask(&a, Duration::from_micros(micros), now);
        let may_compile = |at| admission.admit(&a, at).now_or_never().unwrap().map(drop);
        for _ in 0..100_000 {
            charge(2_000).unwrap();
        }
        assert_eq!(may_compile(now), Ok(()));
        assert_eq!(admission.admit_kept(&a, now), Ok(()));
        // The burst is 10 ms: within it, beyond it, and twice beyond it, where a running request ends.
        let second = Duration::from_secs(1);
        for (micros, charged, refused_for) in [
            (12_000, Ok(()), None),
            (2_001, Ok(()), Some(second)),
            (11_999, Ok(()), Some(10 * second)),
            (2_001, Err(MaskTimeIsSpent), Some(11 * second)),
            (2_000, Ok(()), Some(11 * second)),
        ] {
            assert_eq!(charge(micros), charged, "{micros}");
            let expected =
                refused_for.map_or(Ok(()), |retry_after| Err(NotAdmitted { retry_after }));
            assert_eq!(may_compile(now), expected, "{micros}");
            assert_eq!(admission.admit_kept(&a, now), expected, "{micros}");
        }
        assert_eq!(admission.admit_kept(&b, now), Ok(()));
        let later = now + 11 * second;
        assert_eq!(admission.admit_kept(&a, later), Ok(()));
        assert_eq!(may_compile(later), Ok(()));
        // Compiling alone doesn't refuse what is kept compiled.
        admission.charge(&a, 100_000, later);
        assert!(may_compile(later).is_err());
        assert_eq!(admission.admit_kept(&a, later), Ok(()));
    }
}

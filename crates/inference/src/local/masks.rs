//! Token masks, which say what tokens a format allows next: computed beside the model, in turns of the accounts.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::constraint::{Admission, MaskComputer, MaskJob, MaskTimeIsSpent};
use crate::local::mask_watch::{MaskWatch, Watcher};
use crate::local::workers::{Purpose, Workers};

/// Computes token masks for accounts, at once or later, on this thread or on others.
pub trait AccountMasks: Send {
    /// Starts a job, without waiting for it. There are never more jobs than choices.
    fn compute_for(&mut self, account: &Arc<str>, job: MaskJob);
}

/// Any [`MaskComputer`] will do where accounts needn't take turns.
impl<T: MaskComputer> AccountMasks for T {
    fn compute_for(&mut self, _: &Arc<str>, job: MaskJob) {
        self.compute(job);
    }
}

/// Computes the masks of one account.
pub(crate) struct MasksOf<'a> {
    pub(crate) masks: &'a mut dyn AccountMasks,
    pub(crate) account: &'a Arc<str>,
}

impl MaskComputer for MasksOf<'_> {
    fn compute(&mut self, job: MaskJob) {
        self.masks.compute_for(self.account, job);
    }
}

/// A few threads that compute token masks while the model computes logits. Dropping it ends the threads after the masks
/// that they are at; the other jobs fail.
pub(crate) struct MaskWorkers {
    workers: Workers,
    watch: MaskWatch,
    admission: Arc<Admission>,
    done: Arc<dyn Fn() + Send + Sync>,
}

impl MaskWorkers {
    /// `admission` counts what masks take. `done` is called after each mask, on the thread that has computed it.
    pub(crate) fn start(
        threads: usize,
        admission: Arc<Admission>,
        done: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Ok(MaskWorkers {
            workers: Workers::start(threads.max(1), Purpose::Masks)?,
            watch: MaskWatch::start()?,
            admission,
            done: Arc::new(done),
        })
    }
}

impl AccountMasks for MaskWorkers {
    fn compute_for(&mut self, account: &Arc<str>, job: MaskJob) {
        let (done, admission) = (Arc::clone(&self.done), Arc::clone(&self.admission));
        let (payer, watcher) = (Arc::clone(account), self.watch.watcher());
        self.workers.spawn(account, move || {
            run(job, &payer, &admission, &watcher);
            done();
        });
    }
}

/// Computes a mask for an account, which hands it over only where the account may spend what it took.
fn run(mut job: MaskJob, payer: &Arc<str>, admission: &Admission, watcher: &Watcher) {
    let begun = thread_time();
    let watched = job.stop().map(|stop| watcher.watch(stop));
    let computed = job.compute();
    drop(watched);
    let Some(computed) = computed else {
        return;
    };
    let took = thread_time().saturating_sub(begun);
    match admission.charge_mask(payer, took, Instant::now()) {
        Ok(()) => computed.hand_over(),
        Err(MaskTimeIsSpent) => computed.refuse(),
    }
}

/// Processor time of this thread: what others' work beside a mask takes isn't counted.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

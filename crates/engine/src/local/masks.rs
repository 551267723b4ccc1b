//! Token masks, which say what tokens a format allows next: computed beside the model, in turns of the accounts.

use std::sync::Arc;

use crate::constraint::{MaskComputer, MaskJob};
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
    done: Arc<dyn Fn() + Send + Sync>,
}

impl MaskWorkers {
    /// `done` is called after each mask, on the thread that has computed it.
    pub(crate) fn start(
        threads: usize,
        done: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Ok(MaskWorkers {
            workers: Workers::start(threads.max(1), Purpose::Masks)?,
            done: Arc::new(done),
        })
    }
}

impl AccountMasks for MaskWorkers {
    fn compute_for(&mut self, account: &Arc<str>, job: MaskJob) {
        let done = Arc::clone(&self.done);
        self.workers.spawn(account, move || {
            job.run();
            done();
        });
    }
}

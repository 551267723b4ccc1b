//! Token masks computed without threads: at once, or when a test says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::constraint::{MaskComputer, MaskJob};

/// Computes each mask when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PromptMasks;

impl MaskComputer for PromptMasks {
    fn compute(&mut self, job: MaskJob) {
        job.run();
    }
}

/// Computes masks when a test tells it to; copies share the jobs that wait.
#[derive(Debug, Clone, Default)]
pub struct LateMasks(Arc<Mutex<VecDeque<MaskJob>>>);

impl LateMasks {
    /// The number of masks that are asked for and not computed.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Computes mask number `which` of those that wait, modulo their number.
    pub fn release(&self, which: usize) {
        let mut jobs = self.lock();
        let which = which % jobs.len().max(1);
        let job = jobs.remove(which);
        drop(jobs);
        if let Some(job) = job {
            job.run();
        }
    }

    /// Drops all jobs that wait, as a thread pool does when it ends.
    pub fn lose(&self) {
        let lost = std::mem::take(&mut *self.lock());
        drop(lost);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<MaskJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MaskComputer for LateMasks {
    fn compute(&mut self, job: MaskJob) {
        self.lock().push_back(job);
    }
}

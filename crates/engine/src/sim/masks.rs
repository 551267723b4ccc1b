//! Masks without threads: at once, or when a test says so.

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

/// Computes masks when it is told to; copies share what is left to do.
#[derive(Debug, Clone, Default)]
pub struct LateMasks(Arc<Mutex<VecDeque<MaskJob>>>);

impl LateMasks {
    /// How many masks are asked for and not there.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Computes the one that is number `which` of those that wait, modulo their number.
    pub fn release(&self, which: usize) {
        let mut jobs = self.lock();
        let which = which % jobs.len().max(1);
        let job = jobs.remove(which);
        drop(jobs);
        if let Some(job) = job {
            job.run();
        }
    }

    /// Gives up all that wait, as a pool does that ends.
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

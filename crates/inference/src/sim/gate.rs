//! Handles on a simulated model for use outside of the engine's thread: a gate that holds its steps, and a probe.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::watch;

use crate::model::BatchToken;

/// Holds the model's steps. Dropping it opens it for good.
#[derive(Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Waiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    passes: Mutex<u64>,
    changed: Condvar,
    /// Steps that have come to the gate.
    arrived: watch::Sender<u64>,
}

pub(super) fn gate() -> (Gate, Waiter) {
    let shared = Arc::new(Shared {
        passes: Mutex::new(0),
        changed: Condvar::new(),
        arrived: watch::Sender::new(0),
    });
    (Gate(Arc::clone(&shared)), Waiter(shared))
}

impl Gate {
    /// Lets this many more steps pass.
    pub fn pass(&self, steps: u64) {
        let mut passes = self.0.passes.lock().unwrap_or_else(PoisonError::into_inner);
        *passes = passes.saturating_add(steps);
        drop(passes);
        self.0.changed.notify_all();
    }

    pub fn open(&self) {
        self.pass(u64::MAX);
    }

    /// Waits until the model has come to the gate with its step number `step`, counted from 1.
    pub async fn arrived(&self, step: u64) {
        let mut arrived = self.0.arrived.subscribe();
        arrived
            .wait_for(|&arrived| arrived >= step)
            .await
            .expect("the gate owns the sender");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Waiter {
    pub(super) fn wait(&self) {
        self.0.arrived.send_modify(|arrived| *arrived += 1);
        let passes = self.0.passes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut passes = self
            .0
            .changed
            .wait_while(passes, |passes| *passes == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *passes != u64::MAX {
            *passes -= 1;
        }
    }
}

/// The work that a simulated model was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    pub steps: u64,
    pub rows: u64,
    /// Tokens whose logits were wanted.
    pub outputs: u64,
}

/// Counters of a simulated model: what it holds, and what it has done.
#[derive(Debug, Clone, Default)]
pub struct Probe(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    steps: AtomicU64,
    rows: AtomicU64,
    outputs: AtomicU64,
    cells_used: watch::Sender<u32>,
    sequences_used: AtomicU32,
    forks: AtomicU64,
    cuts: AtomicU64,
    faults: AtomicU64,
    unwanted: AtomicU64,
    turns: AtomicU64,
}

impl Probe {
    /// Steps begun, failed ones included.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::SeqCst)
    }

    /// Tokens of all these steps.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::SeqCst)
    }

    /// The steps, tokens and outputs so far.
    pub fn work(&self) -> Work {
        Work {
            steps: self.steps(),
            rows: self.rows(),
            outputs: self.0.outputs.load(Ordering::SeqCst),
        }
    }

    pub fn cells_used(&self) -> u32 {
        *self.0.cells_used.borrow()
    }

    /// Waits until no cell is used: the engine's thread frees cells after the caller has its answer.
    pub async fn freed(&self) {
        let mut cells = self.0.cells_used.subscribe();
        cells
            .wait_for(|&cells| cells == 0)
            .await
            .expect("the probe owns the sender");
    }

    /// Sequences that have tokens.
    pub fn sequences_used(&self) -> u32 {
        self.0.sequences_used.load(Ordering::SeqCst)
    }

    /// Sequences that were begun with the tokens of another.
    pub fn forks(&self) -> u64 {
        self.0.forks.load(Ordering::SeqCst)
    }

    /// Sequences that were truncated.
    pub fn cuts(&self) -> u64 {
        self.0.cuts.load(Ordering::SeqCst)
    }

    /// Steps that failed.
    pub fn faults(&self) -> u64 {
        self.0.faults.load(Ordering::SeqCst)
    }

    /// Steps that were aborted since they weren't wanted any more.
    pub fn unwanted_steps(&self) -> u64 {
        self.0.unwanted.load(Ordering::SeqCst)
    }

    /// Calls of [`Model::go_aside`](crate::model::Model::go_aside).
    pub fn turns_aside(&self) -> u64 {
        self.0.turns.load(Ordering::SeqCst)
    }

    pub(super) fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unwanted(&self) {
        self.0.unwanted.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn fork(&self) {
        self.0.forks.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn cut(&self) {
        self.0.cuts.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn fault(&self) {
        self.0.faults.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn step(&self, rows: &[BatchToken]) -> u64 {
        let outputs = rows.iter().filter(|row| row.output).count();
        self.0.outputs.fetch_add(outputs as u64, Ordering::SeqCst);
        self.0.rows.fetch_add(rows.len() as u64, Ordering::SeqCst);
        self.0.steps.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn set(&self, cells: u32, sequences: u32) {
        self.0.sequences_used.store(sequences, Ordering::SeqCst);
        self.0.cells_used.send_replace(cells);
    }
}

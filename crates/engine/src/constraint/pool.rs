//! A few threads that compute masks while the model computes logits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::constraint::walk::{MaskComputer, MaskJob};

/// Dropping it ends its threads after the mask that each of them is at; what is left of the jobs fails.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    done: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    /// No more than there are choices: each waits for its job before it has another.
    jobs: VecDeque<MaskJob>,
    closed: bool,
}

impl Pool {
    /// `done` is called after each mask, on the thread that has computed it.
    pub fn start(threads: usize, done: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            done: Box::new(done),
        });
        let mut pool = Pool {
            shared,
            threads: Vec::new(),
        };
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name("weir-masks".to_owned())
                .spawn(move || shared.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }
}

impl MaskComputer for Pool {
    fn compute(&mut self, job: MaskJob) {
        self.shared.lock().jobs.push_back(job);
        self.shared.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that computes masks ended in a panic");
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.take() {
            job.run();
            (self.done)();
        }
    }

    /// Waits for a job; `None` when there won't be more.
    fn take(&self) -> Option<MaskJob> {
        let queue = self
            .changed
            .wait_while(self.lock(), |queue| queue.jobs.is_empty() && !queue.closed);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        queue.jobs.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

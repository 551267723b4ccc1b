//! The threads that a context computes on: a thread pool for each number of threads that was needed so far.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use llama_cpp_sys_2 as sys;

use crate::cores::{Cores, threads_started};
use crate::shim::{Handle, weir_threads_free, weir_threads_new};

/// How a context uses its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// The fewest threads, however busy other processes keep the cores.
    pub(crate) least: u32,
    /// How long a thread spins between two graphs, in ggml's unit of 131,072 pauses.
    pub(crate) polling: u32,
}

#[derive(Debug)]
pub(crate) struct Threads {
    /// Index `n - 1` has the pool of `n` threads. When a context moves to another pool, ggml pauses the one that it had, so no pool
    /// may be freed before the context.
    pools: Vec<Option<Pool>>,
    polling: u32,
    /// The threads of the next step.
    team: Team,
    cores: Option<Cores>,
}

/// Threads that a context may compute on while no other context does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Team {
    pub(crate) pool: NonNull<sys::ggml_threadpool>,
    pub(crate) count: u32,
}

// SAFETY: a pool isn't tied to the thread that made it; ggml guards what its threads share with a mutex and atomics.
unsafe impl Send for Team {}

impl Threads {
    /// # Safety
    ///
    /// The context is freed before this value is.
    pub(crate) unsafe fn attach(
        context: &mut Handle,
        most: u32,
        Use { least, polling }: Use,
    ) -> Self {
        let pool = Pool::start(most, polling);
        let (team, workers) = (pool.team, pool.workers.clone());
        let fewer = (1..most).map(|_| None);
        let threads = Threads {
            pools: fewer.chain([Some(pool)]).collect(),
            polling,
            team,
            cores: Cores::watch(least, most, workers),
        };
        // SAFETY: the caller promises to free the context before these pools.
        unsafe { context.join(team) };
        threads
    }

    /// The number of threads of the next step.
    pub(crate) fn count(&self) -> u32 {
        self.team.count
    }

    pub(crate) fn team(&self) -> Team {
        self.team
    }

    /// Runs a step and times it; afterwards the number of threads may change.
    pub(crate) fn around<T>(
        &mut self,
        context: &mut Handle,
        step: impl FnOnce(&mut Handle) -> T,
    ) -> T {
        let began = self.cores.as_ref().map(Cores::now);
        let result = step(context);
        let next = self
            .cores
            .as_mut()
            .zip(began)
            .and_then(|(cores, began)| cores.step(began));
        if let Some(count) = next {
            tracing::debug!(threads = count, "threads for the cores that others leave");
            let workers = self.switch(context, count);
            if let Some(cores) = &mut self.cores {
                cores.replaced(workers);
            }
        }
        result
    }

    /// Has the next step computed on `count` threads. Returns the ids of the pool's threads, without the calling thread.
    fn switch(&mut self, context: &mut Handle, count: u32) -> Vec<String> {
        let pool =
            self.pools[count as usize - 1].get_or_insert_with(|| Pool::start(count, self.polling));
        self.team = pool.team;
        // SAFETY: pools stay until the context is gone.
        unsafe { context.join(self.team) };
        pool.workers.clone()
    }
}

#[derive(Debug)]
struct Pool {
    team: Team,
    workers: Vec<String>,
}

impl Pool {
    fn start(threads: u32, polling: u32) -> Self {
        let (pool, workers) = threads_started(&unique_name(), || {
            // SAFETY: the shim only makes a pool of that many threads.
            unsafe { weir_threads_new(threads.cast_signed(), polling) }
        });
        let pool =
            NonNull::new(pool).expect("the CPU's kernels were loaded, and have thread pools");
        let team = Team {
            pool,
            count: threads,
        };
        Pool { team, workers }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this value owns the pool, and the contexts that used it are gone.
        unsafe { weir_threads_free(self.team.pool.as_ptr()) }
    }
}

/// A name for a pool's threads. Linux allows 15 bytes.
fn unique_name() -> String {
    static POOLS: AtomicU32 = AtomicU32::new(0);
    format!("kernels-{}", POOLS.fetch_add(1, Ordering::Relaxed))
}

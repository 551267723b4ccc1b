//! The threads that a context computes on, and a pool for each number of them that was asked for.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use llama_cpp_sys_2 as sys;

use crate::cores::{Cores, threads_started};
use crate::shim::{weir_threads_free, weir_threads_new};

/// How a context uses the threads that it was made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// However many cores other processes take.
    pub(crate) least: u32,
    /// How long a thread spins between two graphs, in ggml's unit of 131,072 pauses.
    pub(crate) polling: u32,
}

#[derive(Debug)]
pub(crate) struct Threads {
    /// By their size less one. ggml pauses the one that it leaves for another, so none may go before the context.
    pools: Vec<Option<Pool>>,
    polling: u32,
    cores: Option<Cores>,
}

impl Threads {
    /// # Safety
    ///
    /// The context is alive, and freed before this value is.
    pub(crate) unsafe fn attach(
        context: NonNull<sys::llama_context>,
        most: u32,
        Use { least, polling }: Use,
    ) -> Self {
        let mut threads = Threads {
            pools: (0..most).map(|_| None).collect(),
            polling,
            cores: None,
        };
        let workers = threads.switch(context, most);
        threads.cores = Cores::watch(least, most, workers);
        threads
    }

    /// Those of the next step.
    pub(crate) fn count(&self) -> u32 {
        let most = u32::try_from(self.pools.len()).expect("there were so many");
        self.cores.as_ref().map_or(most, Cores::threads)
    }

    /// A step.
    pub(crate) fn around<T>(
        &mut self,
        context: NonNull<sys::llama_context>,
        step: impl FnOnce() -> T,
    ) -> T {
        let began = self.cores.as_ref().map(Cores::now);
        let result = step();
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

    /// The next step is computed on so many threads; the ids of those beside the one that calls.
    fn switch(&mut self, context: NonNull<sys::llama_context>, count: u32) -> Vec<String> {
        let pool =
            self.pools[count as usize - 1].get_or_insert_with(|| Pool::start(count, self.polling));
        let count = count.cast_signed();
        // SAFETY: both are alive, and the pools stay so until the context is gone. Without a second pool the first one
        // serves prompts as well.
        unsafe {
            sys::llama_attach_threadpool(
                context.as_ptr(),
                pool.pointer.as_ptr(),
                std::ptr::null_mut(),
            );
        };
        // SAFETY: the context is alive.
        unsafe { sys::llama_set_n_threads(context.as_ptr(), count, count) };
        pool.workers.clone()
    }
}

#[derive(Debug)]
struct Pool {
    pointer: NonNull<sys::ggml_threadpool>,
    workers: Vec<String>,
}

impl Pool {
    fn start(threads: u32, polling: u32) -> Self {
        let (pool, workers) = threads_started(&unique_name(), || {
            // SAFETY: the shim only makes a pool of that many threads.
            unsafe { weir_threads_new(threads.cast_signed(), polling) }
        });
        Pool {
            pointer: NonNull::new(pool)
                .expect("the CPU's kernels were loaded, and have thread pools"),
            workers,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: this value owns the pool, and the context that used it is gone.
        unsafe { weir_threads_free(self.pointer.as_ptr()) }
    }
}

/// Linux has 15 bytes for it.
fn unique_name() -> String {
    static POOLS: AtomicU32 = AtomicU32::new(0);
    format!("kernels-{}", POOLS.fetch_add(1, Ordering::Relaxed))
}

//! Threads for work outside of steps: templates, tokenizing, grammars and token masks. Accounts take turns on them, and
//! no account has all of them, so that another account's short prompt needn't wait for its long ones.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use weir_engine::EngineError;

use crate::local::fair_queue::FairQueue;

/// The most jobs that wait; each belongs to a request whose caller waits.
const WAITING_MAX: usize = 1_024;
/// The time after which a refused caller may retry.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The niceness of threads that make way for kernels: beside busy ones they have a tenth of a core each.
const NICENESS: i32 = 10;

/// The kind of work that a group of threads does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Templates, tokenizing and grammars of requests that haven't begun: the kernels come first on every core.
    Texts,
    /// Masks, which running streams wait for.
    Masks,
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread pool. Dropping it ends its threads after the jobs that they are at; callers of the other jobs get an error.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The most threads that one account may have at once.
    account_threads: usize,
    purpose: Purpose,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Job>,
    /// How many threads work for each account.
    busy: HashMap<Arc<str>, usize>,
    closed: bool,
}

struct Job {
    work: Work,
    /// Whether the job's caller still waits.
    wanted: Box<dyn Fn() -> bool + Send>,
}

impl Workers {
    /// Starts the threads: one more than an account may have at once, which is `account_threads`.
    pub(crate) fn start(account_threads: usize, purpose: Purpose) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            account_threads,
            purpose,
        });
        let name = match purpose {
            Purpose::Texts => "weir-texts",
            Purpose::Masks => "weir-masks",
        };
        let mut workers = Workers {
            shared,
            threads: Vec::new(),
        };
        for _ in 0..=account_threads {
            let shared = Arc::clone(&workers.shared);
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || shared.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Does some work when it is the account's turn, and returns its result. Dropping the future drops work that hasn't begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        account: &Arc<str>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (answer, answered) = oneshot::channel();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let asked = Arc::clone(&answer);
        let is_wanted = move || {
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.as_ref().is_some_and(|answer| !answer.is_closed())
        };
        let job = Job {
            work: Box::new(move || {
                let done = work();
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
                // The caller may have left.
                let _ = answer.map(|answer| answer.send(done));
            }),
            wanted: Box::new(is_wanted),
        };
        self.push(account, job, WAITING_MAX)?;
        answered
            .await
            .map_err(|_| EngineError::Fault("preparing a request ended in a panic".to_owned()))
    }

    /// Does some work when it is the account's turn. The queue has no bound here: the caller bounds the number of jobs.
    pub(crate) fn spawn(&self, account: &Arc<str>, work: impl FnOnce() + Send + 'static) {
        let job = Job {
            work: Box::new(work),
            wanted: Box::new(|| true),
        };
        let pushed = self.push(account, job, usize::MAX / 2);
        pushed.expect("there is room without a bound");
    }

    fn push(&self, account: &Arc<str>, job: Job, most: usize) -> Result<(), EngineError> {
        let mut state = self.shared.lock();
        if !state.waiting.has_room(account, most) {
            // Callers that have left may still hold room.
            state.waiting.retain(|job| (job.wanted)());
        }
        if !state.waiting.has_room(account, most) {
            return Err(EngineError::Busy {
                retry_after: RETRY_AFTER,
            });
        }
        state.waiting.push(account, job);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that prepares requests panicked");
            }
        }
    }
}

impl Shared {
    fn run(&self) {
        if self.purpose == Purpose::Texts {
            // On Linux this is for the calling thread alone. If it fails, texts take time from the kernels, no more.
            let _ = rustix::process::setpriority_process(None, NICENESS);
        }
        while let Some((account, job)) = self.next() {
            if (job.wanted)() {
                // The caller learns of a panic by the end of its channel.
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job.work));
                if done.is_err() {
                    tracing::error!("preparing a request panicked");
                }
            }
            self.finish(&account);
        }
    }

    /// Waits for a job whose account may have one more thread. `None` when the pool is closed.
    fn next(&self) -> Option<(Arc<str>, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let State { waiting, busy, .. } = &mut *state;
            let may = |account: &str| {
                busy.get(account)
                    .is_none_or(|&busy| busy < self.account_threads)
            };
            if let Some((account, job)) = waiting.pop(may) {
                *busy.entry(Arc::clone(&account)).or_default() += 1;
                return Some((account, job));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, account: &Arc<str>) {
        let mut state = self.lock();
        if let Some(busy) = state.busy.get_mut(account) {
            *busy -= 1;
            if *busy == 0 {
                state.busy.remove(account);
            }
        }
        let more = !state.waiting.is_empty();
        drop(state);
        if more {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is no problem: nothing under it can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    /// Work that reports when it has begun, and ends when it is released.
    fn held() -> (impl FnOnce() + Send, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (go_on, going_on) = mpsc::channel();
        let work = move || {
            begun.send(()).unwrap();
            // Released, or the sender is dropped.
            let _ = going_on.recv();
        };
        (work, has_begun, go_on)
    }

    #[tokio::test]
    async fn another_accounts_work_waits_for_one_thing_at_most() {
        let workers = Workers::start(2, Purpose::Texts).unwrap();
        let (one, two) = ("one".into(), "two".into());
        let (first, first_begun, end_first) = held();
        let (second, second_begun, end_second) = held();
        let (third, third_begun, end_third) = held();
        let mut first = Box::pin(workers.run(&one, first));
        let mut second = Box::pin(workers.run(&one, second));
        let mut third = Box::pin(workers.run(&one, third));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        first_begun.recv().unwrap();
        second_begun.recv().unwrap();
        // One thread is left for others.
        assert_eq!(workers.run(&two, || 5).await, Ok(5));
        assert!(third_begun.try_recv().is_err());
        end_first.send(()).unwrap();
        third_begun.recv().unwrap();
        drop((end_second, end_third));
        assert_eq!(
            (first.await, second.await, third.await),
            (Ok(()), Ok(()), Ok(()))
        );
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let workers = Workers::start(1, Purpose::Texts).unwrap();
        let account = "one".into();
        let (work, begun, end) = held();
        let mut running = Box::pin(workers.run(&account, work));
        assert!(running.as_mut().now_or_never().is_none());
        begun.recv().unwrap();
        let (sender, ran) = mpsc::channel();
        let mut gone = Box::pin(workers.run(&account, move || sender.send(())));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        end.send(()).unwrap();
        assert_eq!(workers.run(&account, || 1).await, Ok(1));
        assert!(ran.recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_is_the_error_of_its_request() {
        let workers = Workers::start(1, Purpose::Texts).unwrap();
        let account = "one".into();
        let failed = workers.run(&account, || panic!("it was to")).await;
        assert!(matches!(failed, Err(EngineError::Fault(_))), "{failed:?}");
        assert_eq!(workers.run(&account, || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn an_account_that_fills_the_queue_does_not_shut_others_out() {
        let workers = Workers::start(1, Purpose::Texts).unwrap();
        let (one, two) = ("one".into(), "two".into());
        let (work, begun, end) = held();
        let mut running = Box::pin(workers.run(&one, work));
        assert!(running.as_mut().now_or_never().is_none());
        begun.recv().unwrap();
        let nothing: fn() = || ();
        let wait = |_| Box::pin(workers.run(&one, nothing));
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(wait).collect();
        for waiting in &mut waiting {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        let refused = workers.run(&one, || ()).await;
        assert!(
            matches!(refused, Err(EngineError::Busy { .. })),
            "{refused:?}"
        );
        assert_eq!(workers.run(&two, || 5).await, Ok(5));
        // Room of callers that have left is free at once.
        waiting.truncate(WAITING_MAX / 2);
        waiting.push(wait(0));
        end.send(()).unwrap();
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        drop(running);
    }
}

//! Times of threads and cores, from Linux's `/proc`.

#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::fs;
use std::time::{Duration, Instant};

use super::Seen;

#[derive(Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Clock(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Sums since the system was started.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// How long the threads were ready and waited for a core.
    waited: Duration,
    /// How long the cores that this process may use had nothing to do.
    idle: Duration,
}

impl Sample {
    pub(super) fn take(clock: &Clock, workers: &[String]) -> Option<Self> {
        let mut waited = waited("/proc/thread-self")?;
        for worker in workers {
            waited += self::waited(&format!("/proc/self/task/{worker}"))?;
        }
        Some(Sample {
            at: clock.now(),
            waited,
            idle: idle(&fs::read_to_string("/proc/stat").ok()?)?,
        })
    }

    pub(super) fn since(&self, before: &Sample) -> Seen {
        let passed = self.at.saturating_sub(before.at).as_secs_f64().max(1e-6);
        let cores = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / passed;
        Seen {
            waiting: cores(self.waited, before.waited),
            free: cores(self.idle, before.idle),
        }
    }
}

/// The time that a thread was ready and waited for a core: the second number of `schedstat`, in nanoseconds.
fn waited(thread: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("{thread}/schedstat")).ok()?;
    let nanoseconds = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(not(target_os = "linux"))]
fn idle(_stat: &str) -> Option<Duration> {
    None
}

/// The idle time of this process's cores, from lines of `/proc/stat` like `cpu3 user nice system idle iowait …`, in ticks.
#[cfg(target_os = "linux")]
fn idle(stat: &str) -> Option<Duration> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let ours = sched_getaffinity(None).ok()?;
    // `CpuSet` panics when asked for a processor beyond `MAX_CPU`.
    let is_ours = |cpu| cpu < CpuSet::MAX_CPU && ours.is_set(cpu);
    let ticks: u64 = stat
        .lines()
        .filter_map(|line| {
            let (cpu, numbers) = line.strip_prefix("cpu")?.split_once(' ')?;
            let cpu: usize = cpu.parse().ok()?;
            let mut numbers = numbers.split_ascii_whitespace().skip(3);
            let mut next = || numbers.next()?.parse::<u64>().ok();
            is_ours(cpu).then_some(next()? + next()?)
        })
        .sum();
    Some(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn threads_started<T>(_name: &str, start: impl FnOnce() -> T) -> (T, Vec<String>) {
    (start(), Vec::new())
}

/// Calls `start`, and returns with its result the ids of the threads that it started. They are recognized by `name`, which
/// the calling thread has meanwhile: a thread begins with the name of the thread that starts it.
#[cfg(target_os = "linux")]
pub(crate) fn threads_started<T>(name: &str, start: impl FnOnce() -> T) -> (T, Vec<String>) {
    use std::ffi::CString;

    use rustix::thread;

    let ours = thread::name();
    let named = CString::new(name).is_ok_and(|name| thread::set_name(&name).is_ok());
    let started = start();
    if let Ok(ours) = ours {
        // The name was readable, so it can be set: nothing to handle.
        let _ = thread::set_name(&ours);
    }
    (
        started,
        if named {
            threads_named(name)
        } else {
            Vec::new()
        },
    )
}

/// The ids of this process's threads that have the name.
#[cfg(target_os = "linux")]
fn threads_named(name: &str) -> Vec<String> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let ids = tasks.filter_map(|task| task.ok()?.file_name().into_string().ok());
    let is_named = |id: &String| {
        fs::read_to_string(format!("/proc/self/task/{id}/comm"))
            .is_ok_and(|found| found.trim_end() == name)
    };
    ids.filter(is_named).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_our_cores() {
        let ours = rustix::thread::sched_getaffinity(None).expect("the system says so");
        let first = (0..).find(|&cpu| ours.is_set(cpu)).expect("one is ours");
        let tick = Duration::from_secs_f64(1.0 / rustix::param::clock_ticks_per_second() as f64);
        let check = |stat: &str, ticks: u32| assert_eq!(idle(stat), Some(tick * ticks), "{stat}");
        check("cpu  1 2 3 400 50 6\n", 0);
        check(
            &format!("cpu  9 9 9 9 9\ncpu{first} 1 2 3 400 50 6 7\nintr 5 6\n"),
            450,
        );
        // Processors outside of this process's set, and lines that end early, count nothing.
        check(&format!("cpu99999 1 2 3 400 50\ncpu{first} 1 2 3 400\n"), 0);
    }
}

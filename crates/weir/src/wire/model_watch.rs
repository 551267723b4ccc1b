//! Watches the files of served models: once, at low priority, whether their bytes are those of the first start, and every second
//! whether another program writes to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use weir_gateway::Clock;
use weir_llama::{Files, Look};

use super::model_files::{Compared, Identity, ModelFiles};

/// The time between two looks at a file.
const PERIOD: Duration = Duration::from_secs(1);
/// The niceness of the thread that reads whole files, so that all other work comes first.
const NICENESS: i32 = 19;

/// The mapped files of a model.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) model: String,
    pub(crate) files: Arc<Files>,
    /// The files' identity when they were loaded.
    pub(crate) identity: Identity,
    /// Whether the files' bytes are compared at the start.
    pub(crate) checksum: bool,
}

/// Two threads, which end when the value is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Ends the thread that looks at the files when it is dropped.
    end: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(
        watched: Vec<Watched>,
        known: Arc<ModelFiles>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (end, ended) = channel();
        // Each model is in the queue at most once.
        let (jobs, queue) = sync_channel(watched.len());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            known,
            clock,
            stop: Arc::clone(&stop),
        };
        let (at_start, span) = (watched.clone(), tracing::Span::current());
        let reading = std::thread::Builder::new()
            .name("weir-checksum".to_owned())
            .spawn(move || span.in_scope(|| reader.run(at_start, &queue)))?;
        let looking = std::thread::Builder::new()
            .name("weir-files".to_owned())
            .spawn(move || look_after(watched, &jobs, &ended))?;
        Ok(Watch {
            end: Some(end),
            stop,
            threads: vec![reading, looking],
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that looks after model files panicked");
            }
        }
    }
}

/// A job for the reading thread: a file that was written to.
#[derive(Debug)]
struct Written {
    watched: Watched,
    path: PathBuf,
    /// Whether the time of its last write is another one, not only that of its last change.
    is_write: bool,
    /// Whether the model has such a job already.
    busy: Arc<AtomicBool>,
}

fn look_after(watched: Vec<Watched>, jobs: &SyncSender<Written>, ended: &Receiver<()>) {
    let mut watched: Vec<_> = watched
        .into_iter()
        .map(|watched| (watched, Arc::new(AtomicBool::new(false))))
        .collect();
    while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        // Files of models that aren't used any more needn't be watched.
        watched.retain(|(watched, _)| watched.files.distrusted().is_none());
        for (watched, busy) in &watched {
            let (path, is_write) = match watched.files.look() {
                Look::AsBefore => continue,
                Look::Replaced(why) => {
                    distrust(watched, why);
                    continue;
                }
                Look::Written(path) => (path, true),
                Look::Changed(path) => (path, false),
            };
            if busy.swap(true, Ordering::AcqRel) {
                continue;
            }
            let written = Written {
                watched: watched.clone(),
                path,
                is_write,
                busy: Arc::clone(busy),
            };
            if jobs.try_send(written).is_err() {
                busy.store(false, Ordering::Release);
            }
        }
    }
}

fn distrust(watched: &Watched, why: String) {
    tracing::error!(
        model = watched.model,
        "{why}; the model is not available until the server is started again. Replace model files by renaming others to their names"
    );
    watched.files.distrust(why);
}

/// Reads whole files, one at a time, on a thread of its own.
struct Reader {
    known: Arc<ModelFiles>,
    clock: Clock,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(&self, at_start: Vec<Watched>, queue: &Receiver<Written>) {
        // On Linux this changes the priority of this thread only. If it fails, reading slows other work down, no more.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let all = at_start.into_iter().filter(|watched| watched.checksum);
        all.for_each(|watched| self.check(&watched));
        while let Ok(written) = queue.recv() {
            self.check_written(&written);
            written.busy.store(false, Ordering::Release);
        }
    }

    /// Compares a file's bytes with those of its first start, and logs the result.
    fn check(&self, watched: &Watched) {
        let path = watched.files.path();
        let shown = path.display();
        let sha256 = match self.sums(watched) {
            Ok(Some(sums)) => sums,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(model = watched.model, path = %shown, %error, "the model file can't be read");
                return;
            }
        };
        // If the file was written to while it was read, the sum is of neither state. The other thread reports such a file.
        if watched.files.look() != Look::AsBefore {
            return;
        }
        let (sum, model) = (sha256.join(" "), &watched.model);
        match self
            .known
            .compare(path, watched.identity.clone(), sha256, self.clock.now())
        {
            Compared::New => {
                tracing::info!(model, path = %shown, sha256 = sum, "the model file's checksum is remembered");
            }
            Compared::Same => {
                tracing::debug!(model, path = %shown, "the model file is what it was");
            }
            Compared::Changed(before) => tracing::warn!(
                model,
                path = %shown,
                sha256 = sum,
                before = before.sha256.join(" "),
                before_at = before.at,
                "the model file isn't the one that was served before"
            ),
            Compared::Damaged(before) => tracing::error!(
                model,
                path = %shown,
                sha256 = sum,
                before = before.sha256.join(" "),
                before_at = before.at,
                "the model file is damaged: its bytes have changed, its size and time have not. Fetch it again; `weir model inspect --check` \
                 says more"
            ),
        }
    }

    /// Compares a file that was written to, or changed, while it was served with its bytes before. If they differ, it isn't used
    /// any more.
    fn check_written(&self, written: &Written) {
        let Written { watched, path, .. } = written;
        let (files, shown) = (&watched.files, path.display());
        // A write that comes while the bytes are read is seen at the next look.
        let times = files.times();
        let Some(before) = self.known.sums_of(files.path(), &watched.identity) else {
            return self.check_unknown(written);
        };
        tracing::warn!(
            model = watched.model,
            path = %shown,
            "the model file was changed while it is served; its bytes are compared"
        );
        match self.sums(watched) {
            Ok(Some(now)) if now == before => {
                files.accept(&times);
                tracing::info!(model = watched.model, path = %shown, "the model file was touched, and is what it was");
            }
            Ok(Some(_)) => distrust(watched, format!("{shown} was written over")),
            Ok(None) => {}
            Err(error) => distrust(watched, format!("{shown} can't be read: {error}")),
        }
    }

    /// Handles a change of a file whose bytes before aren't known: a write takes its model out of service, another change (of its mode, of its names) doesn't.
    fn check_unknown(&self, written: &Written) {
        let Written { watched, path, .. } = written;
        let shown = path.display();
        if written.is_write {
            let why = format!("{shown} was written to, and what it was isn't known");
            return distrust(watched, why);
        }
        tracing::warn!(
            model = watched.model,
            path = %shown,
            "the model file was changed while it is served: its mode, its names, or its bytes with their time put back; what it was isn't \
             known, and it is used as it is"
        );
        watched.files.accept(&watched.files.times());
        if watched.checksum {
            self.check(watched);
        }
    }

    /// SHA-256 of the model's files; `None` if the server stops meanwhile.
    fn sums(&self, watched: &Watched) -> std::io::Result<Option<Vec<String>>> {
        let go_on = || !self.stop.load(Ordering::Relaxed);
        let sums = watched.files.sha256(go_on)?;
        Ok(sums.map(|sums| sums.into_iter().map(|(_, sum)| sum).collect()))
    }
}

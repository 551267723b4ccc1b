//! A request to read the config again. This crate knows nothing of the config: the process answers.

use tokio::sync::{mpsc, oneshot};

/// The requests that wait for a reload; one more waits for its turn.
const WAITING_MAX: usize = 1;

/// The result of a successful reload. Keys are named as in the config file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose new values are used from now on.
    pub changed: Vec<String>,
    /// The keys whose new values will be used after a restart.
    pub restart: Vec<String>,
    /// Parts of the config that are odd but not wrong.
    pub warnings: Vec<String>,
}

/// Every problem of a config that can't be used.
pub type Problems = Vec<String>;

/// The place for the answer to a request for a reload.
pub type ReloadAnswer = oneshot::Sender<Result<Reloaded, Problems>>;

/// Asks the process for a reload.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<ReloadAnswer>);

impl Reload {
    /// A value that asks, and the requests that it makes. When these are dropped, no reload is possible any more.
    pub fn channel() -> (Reload, mpsc::Receiver<ReloadAnswer>) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        (Reload(sender), requests)
    }

    /// Has the config read again; `None` if the process stops.
    pub(crate) async fn ask(&self) -> Option<Result<Reloaded, Problems>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

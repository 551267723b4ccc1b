//! Sends the store the messages that no request waits for: ended requests, and renewals of the running ones. One task
//! does both, so that a slot is never renewed after its release.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leases;
use super::connection::Connection;
use super::script::{Call, Time};

/// Number of queued calls that are sent in one pipeline.
const BATCH: usize = 256;
/// Number of slots that one call of the script renews.
const RENEWED_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(super) struct ReleaseQueue {
    pub(super) connection: Arc<Connection>,
    pub(super) leases: Arc<Leases>,
    pub(super) time: Time,
    pub(super) lease_time: Duration,
}

/// A call of the script, and the channel that hears when it was made, or dropped.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) call: Call,
    pub(super) done: oneshot::Sender<()>,
}

impl ReleaseQueue {
    /// Runs until `stop`, and then sends what is still queued.
    pub(super) async fn run(self, mut errands: mpsc::Receiver<Errand>, stop: CancellationToken) {
        let mut renewals = tokio::time::interval(self.lease_time / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = errands.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.deliver(&mut batch).await;
                }
                now = renewals.tick() => self.renew(now).await,
                () = stop.cancelled() => errands.close(),
            }
        }
    }

    async fn deliver(&self, batch: &mut Vec<Errand>) {
        let (calls, done): (Vec<Call>, Vec<_>) = batch
            .drain(..)
            .map(|errand| (errand.call, errand.done))
            .unzip();
        // Calls that fail aren't repeated: slots expire by themselves, and tokens come back with time.
        let _ = self.connection.tell(&calls).await;
        for done in done {
            // Most receivers have been dropped.
            let _ = done.send(());
        }
    }

    async fn renew(&self, now: Instant) {
        let leases: Vec<(Arc<str>, String)> = {
            let leases = self.leases.lock();
            let each = |(id, places): (&Arc<str>, &Vec<String>)| {
                let id = Arc::clone(id);
                places
                    .clone()
                    .into_iter()
                    .map(move |place| (Arc::clone(&id), place))
            };
            leases.iter().flat_map(each).collect()
        };
        for some in leases.chunks(RENEWED_AT_ONCE) {
            let call = Call::renew(some, self.lease_time, self.time.argument(now));
            if self.connection.tell(&[call]).await.is_err() {
                return;
            }
        }
    }
}

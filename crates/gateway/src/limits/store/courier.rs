//! Tells the store what nobody waits for: ends of requests, and that the others still run. One task does
//! both, so that a seat that was given up isn't renewed after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Seats;
use super::line::Line;
use super::script::{Call, Time};

/// Calls that are sent at once.
const BATCH: usize = 256;
/// Seats that one call renews.
const RENEWED_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(super) struct Courier {
    pub(super) line: Arc<Line>,
    pub(super) seats: Arc<Seats>,
    pub(super) time: Time,
    pub(super) lease: Duration,
}

/// A call, and who hears when it was made, or dropped.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) call: Call,
    pub(super) done: oneshot::Sender<()>,
}

impl Courier {
    /// Runs until `stop`, and then takes along what waits.
    pub(super) async fn run(self, mut errands: mpsc::Receiver<Errand>, stop: CancellationToken) {
        let mut renewals = tokio::time::interval(self.lease / 3);
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
        // What can't be told is forgotten: seats expire by themselves, and tokens come back with time.
        let _ = self.line.tell(&calls).await;
        for done in done {
            // Most don't listen.
            let _ = done.send(());
        }
    }

    async fn renew(&self, now: Instant) {
        let seats: Vec<(Arc<str>, String)> = {
            let seats = self.seats.lock();
            let each = |(id, places): (&Arc<str>, &Vec<String>)| {
                let id = Arc::clone(id);
                places
                    .clone()
                    .into_iter()
                    .map(move |place| (Arc::clone(&id), place))
            };
            seats.iter().flat_map(each).collect()
        };
        for some in seats.chunks(RENEWED_AT_ONCE) {
            let call = Call::renew(some, self.lease, self.time.argument(now));
            if self.line.tell(&[call]).await.is_err() {
                return;
            }
        }
    }
}

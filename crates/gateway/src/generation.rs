//! A generation under way: its events, and at its end, however it comes, the bill.

use std::sync::Arc;
use std::time::Duration;

use weir_accounts::Outcome;
use weir_engine::constraint::Relaxed;
use weir_engine::{EngineError, Event, Events, Usage};

use crate::bill::{Bill, Ending, Settled};
use crate::{Delivery, Gateway, Refusal, STORE_RETRY};

/// How often the hold is looked at when no text comes: tokens may be generated that have none.
const ROLL_POLL: Duration = Duration::from_millis(50);
/// How long a cancelled engine may take to let go; a step is far shorter.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(30);

/// Events of a request that was admitted and is paid for. Dropping it cancels the request and settles
/// what was generated.
#[derive(Debug)]
pub struct Generation {
    gateway: Gateway,
    /// What of the request's schemas isn't enforced.
    relaxed: Arc<[Relaxed]>,
    /// Gone once the last event is out.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    events: Events,
    bill: Bill,
    delivery: Delivery,
    /// Completion tokens whose text was handed out before the present call of `next`.
    delivered: u64,
    /// Those of the event that was handed out last: on its way to the caller.
    handed_out: u64,
}

impl Generation {
    pub(crate) fn new(gateway: Gateway, events: Events, bill: Bill, delivery: Delivery) -> Self {
        let running = Running {
            events,
            bill,
            delivery,
            delivered: 0,
            handed_out: 0,
        };
        Generation {
            gateway,
            relaxed: Arc::default(),
            running: Some(running),
        }
    }

    pub(crate) fn with_relaxed(mut self, relaxed: Arc<[Relaxed]>) -> Self {
        self.relaxed = relaxed;
        self
    }

    /// What of the request's schemas isn't enforced.
    pub fn relaxed(&self) -> &[Relaxed] {
        &self.relaxed
    }

    /// The next event, or why the answer ends here; `None` after the last. The last one comes when the bill is settled,
    /// durably. [`Event::Failed`] never comes: it is a refusal.
    pub async fn next(&mut self) -> Option<Result<Event, Refusal>> {
        let running = self.running.as_mut()?;
        running.delivered += std::mem::take(&mut running.handed_out);
        running.checkpoint(&self.gateway);
        let event = match running.receive(&self.gateway).await {
            Ok(event) => event,
            Err(refusal) => {
                running.events.close();
                return Some(self.break_off(refusal).await);
            }
        };
        // What may be somebody else's to end is not handed out.
        if !running.bill.may_deliver().await {
            tracing::warn!("this node is cut off from the database: an answer ends here");
            running.events.close();
            return Some(self.break_off(unsettled()).await);
        }
        Some(match event {
            Event::Text { tokens, .. } => {
                running.handed_out = u64::from(tokens);
                Ok(event)
            }
            Event::Prompt { .. } | Event::Call { .. } | Event::Finished { .. } => Ok(event),
            Event::Done(usage) => match self.settle(usage, Outcome::Success).await {
                Settled::Durably => Ok(event),
                Settled::NotYet => Err(unsettled()),
            },
            Event::Failed(error) => {
                tracing::warn!(%error, "a generation failed");
                let refusal = Refusal::from_engine(error, running.bill.model());
                self.break_off(refusal).await
            }
        })
    }

    /// Charges what the caller has got so far.
    async fn break_off(&mut self, refusal: Refusal) -> Result<Event, Refusal> {
        if let Some(running) = &self.running {
            let delivered = running.delivered_usage();
            // The answer ends with an error, settled or not.
            let _ = self.settle(delivered, Outcome::EngineFailed).await;
        }
        Err(refusal)
    }

    async fn settle(&mut self, used: Usage, outcome: Outcome) -> Settled {
        let Some(running) = self.running.take() else {
            return Settled::Durably;
        };
        let ending = Ending {
            used,
            outcome,
            delivered: running.delivered_usage(),
        };
        running.bill.settle(&self.gateway, ending).await
    }
}

fn unsettled() -> Refusal {
    Refusal::StoreUnavailable {
        retry_after: STORE_RETRY,
    }
}

impl Running {
    /// Waits for an event, and meanwhile keeps the hold ahead of the engine.
    async fn receive(&mut self, gateway: &Gateway) -> Result<Event, Refusal> {
        loop {
            let generated = self.events.usage().completion;
            self.bill.roll(gateway, generated).await?;
            let event = if self.bill.rolls() {
                match tokio::time::timeout(ROLL_POLL, self.events.next()).await {
                    Ok(event) => event,
                    Err(_elapsed) => continue,
                }
            } else {
                self.events.next().await
            };
            return Ok(event.unwrap_or_else(|| {
                Event::Failed(EngineError::Fault(
                    "the engine ended without a last event".to_owned(),
                ))
            }));
        }
    }

    /// Also renews the hold, so that it outlives a long generation.
    fn checkpoint(&mut self, gateway: &Gateway) {
        let delivered = self.delivered_usage();
        self.bill.checkpoint(gateway, delivered);
    }

    /// What a caller has got: nothing before the first token, and nothing of an answer that would have
    /// come whole.
    fn delivered_usage(&self) -> Usage {
        if self.delivered == 0 || self.delivery == Delivery::Whole {
            return Usage::default();
        }
        Usage {
            completion: self.delivered,
            ..self.events.usage()
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let Some(Running {
            mut events, bill, ..
        }) = self.running.take()
        else {
            return;
        };
        // At once: the task that settles may have to wait for its turn, and the engine goes on meanwhile.
        events.close();
        // Without a runtime the process is ending: the hold's own drop, or recovery, settles it.
        if tokio::runtime::Handle::try_current().is_ok() {
            let gateway = self.gateway.clone();
            self.gateway
                .0
                .tasks
                .spawn(settle_cancelled(gateway, events, bill));
        }
    }
}

/// Charges a caller that has gone for every token that was generated for it.
async fn settle_cancelled(gateway: Gateway, events: Events, bill: Bill) {
    let so_far = events.usage();
    let used = tokio::time::timeout(CANCEL_WAIT_MAX, events.cancel())
        .await
        .unwrap_or(so_far);
    let ending = Ending {
        used,
        outcome: Outcome::Disconnected,
        delivered: used,
    };
    // Nobody waits for it.
    let _ = bill.settle(&gateway, ending).await;
}

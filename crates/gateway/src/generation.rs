//! A running generation: its events and, however it ends, its settlement.

use std::sync::Arc;
use std::time::Duration;

use weir_accounts::Outcome;
use weir_engine::{EngineError, Event, Events, Relaxed, Usage};

use crate::bill::{Bill, Ending, Settled};
use crate::{Delivery, Gateway, Refusal, STORE_RETRY};

/// How often the hold is checked while no event comes: the engine may generate tokens that produce no text.
const ROLL_POLL: Duration = Duration::from_millis(50);
/// The longest wait for a cancelled engine to stop; a step is far shorter.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(30);

/// The events of a request that was admitted and has a hold. Dropping a `Generation` cancels the request and settles
/// the tokens generated until then.
#[derive(Debug)]
pub struct Generation {
    gateway: Gateway,
    /// The parts of the request's schemas that aren't enforced.
    relaxed: Arc<[Relaxed]>,
    prompt_tokens: u64,
    /// `None` once the last event is out.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    events: Events,
    bill: Bill,
    delivery: Delivery,
    /// Completion tokens whose text was returned before the current call of `next`.
    delivered: u64,
    /// Completion tokens of the last returned event, whose text may still be on its way to the caller.
    handed_out: u64,
}

impl Generation {
    pub(crate) fn new(gateway: Gateway, events: Events, bill: Bill, delivery: Delivery) -> Self {
        let prompt_tokens = bill.prompt_tokens();
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
            prompt_tokens,
            running: Some(running),
        }
    }

    pub(crate) fn with_relaxed(mut self, relaxed: Arc<[Relaxed]>) -> Self {
        self.relaxed = relaxed;
        self
    }

    /// The parts of the request's schemas that aren't enforced.
    pub fn relaxed(&self) -> &[Relaxed] {
        &self.relaxed
    }

    /// The number of tokens of all prompts.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// The next event, or the reason why the answer ends here; `None` after the last. [`Event::Done`] comes only after
    /// the usage is durably settled. [`Event::Failed`] is never returned: it becomes a [`Refusal`].
    pub async fn next(&mut self) -> Option<Result<Event, Refusal>> {
        let running = self.running.as_mut()?;
        running.delivered += std::mem::take(&mut running.handed_out);
        let event = match running.receive(&self.gateway).await {
            Ok(event) => event,
            Err(refusal) => {
                running.events.close();
                return Some(self.break_off(refusal).await);
            }
        };
        // Another node may have ended the hold already: nothing more is delivered without a valid lease.
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

    /// Ends the answer with an error, and charges what the caller has received so far.
    async fn break_off(&mut self, refusal: Refusal) -> Result<Event, Refusal> {
        if let Some(running) = &self.running {
            let delivered = running.delivered_usage();
            // The answer ends with an error, whether the settlement is durable or not.
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
    /// Records how far the answer came, then waits for an event, and meanwhile extends the hold before the engine reaches its end.
    async fn receive(&mut self, gateway: &Gateway) -> Result<Event, Refusal> {
        self.checkpoint(gateway).await?;
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

    /// Records the delivered tokens durably. This also renews the hold, so that it outlives a long generation.
    async fn checkpoint(&mut self, gateway: &Gateway) -> Result<(), Refusal> {
        let delivered = self.delivered_usage();
        self.bill.checkpoint(gateway, delivered).await
    }

    /// The usage that the caller has received: nothing before the first token, and nothing of an answer that would have
    /// been sent as a whole.
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
        // Closed here and not by the task: the task that settles may have to wait for its turn, and the engine goes on
        // meanwhile.
        events.close();
        // Without a runtime the process is ending: the hold's own drop, or the next start's recovery, settles it.
        if tokio::runtime::Handle::try_current().is_ok() {
            let gateway = self.gateway.clone();
            self.gateway
                .0
                .tasks
                .spawn(settle_cancelled(gateway, events, bill));
        }
    }
}

/// Charges a caller that has hung up for every token that was generated for it.
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
    // The caller has hung up: there is no one to report the result to.
    let _ = bill.settle(&gateway, ending).await;
}

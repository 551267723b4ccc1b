//! The payment of a generation: the hold, which is extended while it runs, and the permit of its rate limits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{
    Caller, Counts, Hold, HoldError, Nanos, NewHold, Outcome, Price, Settlement, Source,
};
use weir_engine::{Allowance, Usage};

use crate::admitted::cost_max;
use crate::limits::Permit;
use crate::{Gateway, Refusal, STORE_RETRY};

/// Output tokens that a hold without an explicit limit covers at first, and the step by which it is extended.
pub(crate) const ROLLING_SLICE_TOKENS: u64 = 1024;
/// Output tokens that an engine may generate before the hold is durable. With 0 the engine wouldn't start the prefill.
/// Every hold covers at least this many.
pub(crate) const HEAD_START_TOKENS: u64 = 1;
/// `Retry-After` while other requests of the account hold the balance.
pub(crate) const IN_FLIGHT_RETRY: Duration = Duration::from_secs(5);
/// Longest pause between attempts to settle while the database is unreachable.
const SETTLE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The request that a bill is for, with its price and its limits.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) caller: Caller,
    pub(crate) request_id: String,
    pub(crate) model: String,
    pub(crate) price: Price,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens_max: u64,
    /// Whether the caller gave `max_tokens`. If so, the cost of all of them is held at once, or the request is refused.
    pub(crate) explicit: bool,
    pub(crate) allowance: Allowance,
}

impl Order {
    /// The most that the prompt and this many output tokens can cost.
    fn cost(&self, output_tokens: u64) -> Result<Nanos, Refusal> {
        cost_max(&self.price, self.prompt_tokens, output_tokens)
    }

    /// The number of output tokens that an amount covers, after the cost of the prompt.
    fn affordable(&self, amount: Nanos) -> u64 {
        let prompt = Counts {
            prompt: self.prompt_tokens,
            ..Counts::default()
        };
        self.price
            .output_covered(amount, &prompt)
            .min(self.output_tokens_max)
    }
}

/// How a request ended, and the usage to charge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) used: Usage,
    pub(crate) outcome: Outcome,
    /// The usage that the caller had received before the end.
    pub(crate) delivered: Usage,
}

/// Whether the charge survives a crash of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Settled {
    Durably,
    NotYet,
}

#[derive(Debug)]
pub(crate) struct Bill {
    order: Order,
    hold: Hold,
    /// Number of output tokens that the hold covers.
    held_tokens: u64,
    permit: Permit,
    checkpoint_at: Instant,
    stalled: Stalled,
}

/// State of a hold that can't be extended because the database is unreachable.
#[derive(Debug, Default)]
struct Stalled {
    since: Option<Instant>,
    try_at: Option<Instant>,
}

impl Stalled {
    fn may_try(&self) -> bool {
        self.try_at.is_none_or(|at| Instant::now() >= at)
    }

    /// Whether to keep waiting for the database: always while the hold still covers tokens, and for `stall_max` after
    /// that.
    fn wait(&mut self, used_up: bool, stall_max: Duration) -> bool {
        let now = Instant::now();
        self.try_at = Some(now + STORE_RETRY);
        let since = *self.since.get_or_insert(now);
        !used_up || now - since < stall_max
    }
}

impl Bill {
    /// Places the hold and, once it is durable, lets the engine generate as far as the hold covers.
    pub(crate) async fn open(
        gateway: &Gateway,
        order: Order,
        permit: Permit,
    ) -> Result<Self, Refusal> {
        let slice = if order.explicit {
            u64::MAX
        } else {
            ROLLING_SLICE_TOKENS
        };
        let wanted = slice.min(order.output_tokens_max);
        let (hold, held_tokens) = match first_hold(gateway, &order, wanted).await {
            Ok(hold) => (hold, wanted),
            Err(error) => {
                let affordable = available(&error)
                    .map_or(0, |amount| order.affordable(amount))
                    .min(wanted);
                if order.explicit || affordable == 0 {
                    return Err(refusal(error, affordable));
                }
                // The balance covers less than a slice: hold what it covers, up to the last token.
                let hold = first_hold(gateway, &order, affordable).await;
                (hold.map_err(|error| refusal(error, 0))?, affordable)
            }
        };
        let checkpoint_at = Instant::now() + gateway.0.checkpoint_every;
        let bill = Bill {
            order,
            hold,
            held_tokens,
            permit,
            checkpoint_at,
            stalled: Stalled::default(),
        };
        bill.order
            .allowance
            .raise(held_tokens.saturating_sub(HEAD_START_TOKENS));
        if held_tokens == bill.order.output_tokens_max {
            bill.order.allowance.close();
        }
        Ok(bill)
    }

    /// Whether the hold may still be extended.
    pub(crate) fn rolls(&self) -> bool {
        !self.order.allowance.is_closed()
    }

    /// Extends the hold when half of its last slice is used. If the balance can't cover more, the generation ends where
    /// the hold ends. If the database is unreachable, the engine waits at that point, for `stall_max` at most.
    pub(crate) async fn roll(&mut self, gateway: &Gateway, generated: u64) -> Result<(), Refusal> {
        let left = self.held_tokens.saturating_sub(generated);
        if !self.rolls() || left > ROLLING_SLICE_TOKENS / 2 || !self.stalled.may_try() {
            return Ok(());
        }
        let more = ROLLING_SLICE_TOKENS.min(self.order.output_tokens_max - self.held_tokens);
        let grown = match self.extend(gateway, more).await {
            Ok(()) => more,
            Err(error) if available(&error).is_some() => {
                self.extend_to_the_end(gateway, error).await
            }
            Err(HoldError::Ended) => 0,
            Err(error) => {
                tracing::warn!(%error, "a hold can't be extended now");
                return match self.stalled.wait(left == 0, gateway.0.stall_max) {
                    true => Ok(()),
                    false => Err(refusal(error, 0)),
                };
            }
        };
        self.stalled = Stalled::default();
        self.held_tokens += grown;
        self.order.allowance.raise(grown);
        if grown < more || self.held_tokens == self.order.output_tokens_max {
            self.order.allowance.close();
        }
        Ok(())
    }

    async fn extend(&mut self, gateway: &Gateway, tokens: u64) -> Result<(), HoldError> {
        let Ok(cost) = self.order.cost(self.held_tokens + tokens) else {
            return Err(HoldError::BalanceTooLow {
                available: Nanos::ZERO,
            });
        };
        let more = cost.checked_sub(self.hold.amount()).unwrap_or(Nanos::ZERO);
        gateway
            .0
            .accounts
            .extend(&mut self.hold, more, gateway.now())
            .await
    }

    /// Extends the hold by what is left of the balance. Returns the tokens that this covers, 0 if none.
    async fn extend_to_the_end(&mut self, gateway: &Gateway, error: HoldError) -> u64 {
        let available = available(&error).unwrap_or(Nanos::ZERO);
        let reach = available
            .checked_add(self.hold.amount())
            .map_or(0, |amount| self.order.affordable(amount));
        let left = reach
            .saturating_sub(self.held_tokens)
            .min(ROLLING_SLICE_TOKENS);
        if left > 0 && self.extend(gateway, left).await.is_ok() {
            left
        } else {
            0
        }
    }

    /// Makes the delivered tokens durable, about once a second. A checkpoint that the database hasn't got by the time of the next
    /// one is kept beside it; if that fails, too, nothing more may be delivered, since a crash would lose what was.
    pub(crate) async fn checkpoint(
        &mut self,
        gateway: &Gateway,
        delivered: Usage,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        if now < self.checkpoint_at {
            return Ok(());
        }
        self.checkpoint_at = now + gateway.0.checkpoint_every;
        let accounts = &gateway.0.accounts;
        let is_late = !self.hold.is_checkpoint_durable();
        let (counts, time) = (counts(delivered), gateway.now());
        accounts.checkpoint(&self.hold, counts, time);
        if !is_late || delivered.completion == 0 {
            return Ok(());
        }
        let kept = accounts.keep_checkpoint(&self.hold, counts, time).await;
        kept.map_err(|error| {
            let request_id = &self.order.request_id;
            tracing::error!(%error, request_id, "an answer ends here: what was delivered can be kept nowhere");
            Refusal::StoreUnavailable {
                retry_after: STORE_RETRY,
            }
        })
    }

    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.order.prompt_tokens
    }

    pub(crate) fn model(&self) -> &str {
        &self.order.model
    }

    /// Whether the caller may receive more text: only while no other node can have ended the hold. A node that was
    /// asleep, or cut off from the database for a while, has to renew its lease first.
    pub(crate) async fn may_deliver(&self) -> bool {
        self.hold.is_leased() || self.hold.wait_leased().await
    }

    /// Charges the usage and releases the rest of the hold. If the database can't be written, the settlement is kept in
    /// a file outside of it and retried in the background.
    pub(crate) async fn settle(self, gateway: &Gateway, ending: Ending) -> Settled {
        let Ending {
            used,
            outcome,
            delivered,
        } = ending;
        let ended = self
            .permit
            .end(used.prompt + used.completion, Instant::now());
        let settlement = settlement(used, outcome, gateway.now());
        let settling = gateway.0.accounts.settle(self.hold, settlement);
        let (settled, ()) = tokio::join!(settling, ended);
        let Err(failed) = settled else {
            return Settled::Durably;
        };
        let request_id = self.order.request_id;
        tracing::error!(error = %failed.error, request_id, "a settlement waits for the database");
        let kept = gateway.0.accounts.keep(&failed.hold, settlement).await;
        let (settled, settlement) = match kept {
            Ok(()) => (Settled::Durably, settlement),
            Err(error) => {
                tracing::error!(%error, request_id, "a settlement can be kept nowhere");
                // The caller receives an error, and pays only for the text that it got before.
                let got = self::settlement(delivered, Outcome::EngineFailed, settlement.now);
                (Settled::NotYet, got)
            }
        };
        gateway.0.unsettled.fetch_add(1, Ordering::Relaxed);
        let again = settle_again(gateway.clone(), failed.hold, settlement);
        gateway.0.tasks.spawn(again);
        settled
    }

    /// Releases the hold of a generation that the engine didn't accept. If that fails, dropping the hold ends it later.
    pub(crate) async fn cancel(self, gateway: Gateway) {
        self.permit.end(0, Instant::now()).await;
        if let Err(failed) = gateway.0.accounts.release(self.hold, gateway.now()).await {
            tracing::error!(error = %failed.error, "a hold can't be released yet");
        }
    }
}

fn settlement(used: Usage, outcome: Outcome, now: Timestamp) -> Settlement {
    Settlement {
        counts: counts(used),
        outcome,
        source: Source::Engine,
        now,
    }
}

async fn settle_again(gateway: Gateway, mut hold: Hold, settlement: Settlement) {
    let mut pause = STORE_RETRY;
    loop {
        tokio::time::sleep(pause).await;
        match gateway.0.accounts.settle(hold, settlement).await {
            Ok(_) => {
                gateway.0.unsettled.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            Err(failed) => hold = failed.hold,
        }
        pause = (pause * 2).min(SETTLE_PAUSE_MAX);
    }
}

async fn first_hold(
    gateway: &Gateway,
    order: &Order,
    output_tokens: u64,
) -> Result<Hold, HoldError> {
    let now = gateway.now();
    let amount = order
        .cost(output_tokens)
        .map_err(|_| HoldError::BalanceTooLow {
            available: Nanos::ZERO,
        })?;
    let pending = gateway.0.accounts.hold(NewHold {
        request: order.request_id.clone(),
        attempt: 1,
        caller: order.caller.clone(),
        model: order.model.clone(),
        price: order.price,
        amount,
        now,
    })?;
    pending.durable().await
}

/// The amount that the account, or the key's cap, could still pay, if a hold was refused for lack of money.
fn available(error: &HoldError) -> Option<Nanos> {
    match error {
        HoldError::BalanceTooLow { available }
        | HoldError::InFlight { available, .. }
        | HoldError::KeyCap { available, .. } => Some(*available),
        HoldError::Overloaded | HoldError::Ended | HoldError::Store(_) => None,
    }
}

fn refusal(error: HoldError, affordable: u64) -> Refusal {
    match error {
        HoldError::BalanceTooLow { .. } => Refusal::BalanceTooLow { affordable },
        HoldError::InFlight { .. } => Refusal::BalanceInFlight {
            retry_after: IN_FLIGHT_RETRY,
        },
        HoldError::KeyCap {
            period, in_flight, ..
        } => Refusal::KeyCap {
            period,
            affordable,
            retry_after: in_flight.then_some(IN_FLIGHT_RETRY),
        },
        HoldError::Overloaded => Refusal::LedgerQueueFull {
            retry_after: STORE_RETRY,
        },
        HoldError::Ended => Refusal::Internal("a new hold had ended already".to_owned()),
        HoldError::Store(error) => {
            tracing::error!(%error, "holds can't be made");
            Refusal::StoreUnavailable {
                retry_after: STORE_RETRY,
            }
        }
    }
}

fn counts(usage: Usage) -> Counts {
    Counts {
        prompt: usage.prompt,
        cached: usage.cached,
        completion: usage.completion,
        reasoning: usage.reasoning.min(usage.completion),
    }
}

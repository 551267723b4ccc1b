//! Checks whether a request was charged correctly.

use weir_accounts::{Outcome, UsageRecord};
use weir_engine::event::EVENTS_MAX;

use crate::journal::{Journal, Request};

/// Compares a usage record with the facts that the process reported. `drained`: the process ended in order.
pub(crate) fn judge(
    journal: &Journal,
    id: &str,
    record: Option<&UsageRecord>,
    drained: bool,
) -> Result<(), String> {
    let request = &journal.requests[id];
    match record {
        None => uncharged(journal, id, drained),
        Some(record) => {
            price(request, record)?;
            charged(journal, id, record, drained)
        }
    }
    .map_err(|why| format!("{id}: {why}\n{request:?}\n{record:?}"))
}

fn ensure(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}

fn uncharged(journal: &Journal, id: &str, drained: bool) -> Result<(), String> {
    let request = &journal.requests[id];
    let settled = request.done.is_some() || request.failed;
    ensure(!settled, "it was settled, and the record is lost")?;
    ensure(
        !drained || request.refused.is_some(),
        "it was served, and is not charged",
    )?;
    ensure(
        request.whole || journal.durable(id) == 0,
        "the loss is more than a checkpoint",
    )?;
    let Some(why) = &request.refused else {
        return Ok(());
    };
    // On a busy machine a request may come when its node has begun to drain.
    ensure(
        why.contains("balance") || drained && why.contains("draining"),
        "refused for another reason than money or the end of its node",
    )
}

/// Checks that the price is that at admission, and the cost right to the nano-dollar.
fn price(request: &Request, record: &UsageRecord) -> Result<(), String> {
    let asked = (request.prices.input, request.prices.output);
    ensure(
        (record.price.input, record.price.output) == asked,
        "at another price",
    )?;
    ensure(
        record.price.cost(&record.counts) == Some(record.cost),
        "another cost than its tokens have",
    )
}

fn charged(journal: &Journal, id: &str, record: &UsageRecord, drained: bool) -> Result<(), String> {
    let request = &journal.requests[id];
    let (delivered, counts) = (request.delivered(), record.counts);
    ensure(request.refused.is_none(), "refused, and charged")?;
    let prompt = if counts.completion == 0 && record.outcome != Outcome::Success {
        0
    } else {
        request.prompt
    };
    match record.outcome {
        Outcome::Success => {
            let settled = (counts.prompt, counts.completion);
            ensure(
                request.done.is_none_or(|done| done == settled),
                "not what the caller was told",
            )?;
            // Tokens without text count too: one that ends the text, and those of an unfinished character.
            let least = counts.completion.saturating_sub(4 * request.choices);
            ensure(
                (least..=counts.completion).contains(&delivered),
                "not what was delivered",
            )?;
            ensure(counts.prompt == request.prompt, "another prompt")
        }
        Outcome::EngineFailed => {
            let due = if request.whole { 0 } else { delivered };
            ensure(
                counts.completion == due,
                "a failed engine is paid for what it didn't deliver",
            )?;
            ensure(counts.prompt == prompt, "another prompt")
        }
        Outcome::Disconnected => {
            // Events may have waited for the caller, of up to four tokens each, and one step of each choice may have run.
            let most = delivered + 4 * (EVENTS_MAX as u64 + request.choices);
            ensure(request.hung_up, "nobody has hung up")?;
            ensure(
                (delivered..=most).contains(&counts.completion),
                "not what was generated",
            )?;
            ensure(counts.prompt == request.prompt, "another prompt")
        }
        Outcome::Expired => {
            let settled = request.done.is_some() || request.failed;
            ensure(
                !settled && !drained,
                "it was settled, and something else is charged",
            )?;
            let most = if request.whole { 0 } else { delivered };
            let least = if request.whole {
                0
            } else {
                journal.durable(id)
            };
            ensure(
                counts.completion <= most,
                "charged for what was not delivered",
            )?;
            ensure(
                counts.completion >= least,
                "the loss is more than a checkpoint",
            )?;
            ensure(counts.prompt == prompt, "another prompt")
        }
    }
}

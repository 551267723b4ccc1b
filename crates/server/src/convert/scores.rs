//! A limit for the number of log-probabilities in one answer.

use weir_engine::request::Invalid;
use weir_gateway::{Delivery, Offer};

use super::ChatJob;

/// Most log-probabilities in a whole answer, alternatives included: about 100 MB of JSON. A stream frees each once it
/// is sent.
pub(crate) const ANSWER_LOGPROBS_MAX: u64 = 1 << 20;

/// Refuses a whole answer that could get too many log-probabilities, since all of them stay in memory until the last
/// token.
pub(super) fn check<S>(job: &ChatJob<S>, offer: &Offer) -> Result<(), Invalid> {
    let request = &job.request;
    let (Some(logprobs), Delivery::Whole) = (request.logprobs, job.delivery) else {
        return Ok(());
    };
    let context = offer.facts().map(|facts| facts.context_tokens);
    let limits = [request.output.tokens, context, offer.max_output_tokens];
    let Some(tokens) = limits.into_iter().flatten().min() else {
        return Ok(());
    };
    let texts = u64::from(job.prompts()) * u64::from(request.choices.get());
    let of_each = 1 + logprobs.top() as u64;
    let entries = texts
        .saturating_mul(u64::from(tokens))
        .saturating_mul(of_each);
    if entries > ANSWER_LOGPROBS_MAX {
        let message = format!(
            "logprobs: up to {tokens} tokens in each of {texts} texts would be {entries} log-probabilities; \
             an answer that isn't streamed has at most {ANSWER_LOGPROBS_MAX}: lower max_tokens, ask for fewer \
             choices or alternatives, or stream"
        );
        return Err(Invalid::new("logprobs", message));
    }
    Ok(())
}

//! How many log-probabilities one answer may have.

use weir_engine::request::Invalid;
use weir_gateway::Offer;

use super::{Asked, Reply};

/// Log-probabilities of a whole answer, alternatives included: some 100 MB of JSON. A stream lets go of
/// each as it is sent.
pub(crate) const ANSWER_LOGPROBS_MAX: u64 = 1 << 20;

/// A whole answer stays in memory until its last token, so it is refused if it could become too large.
pub(super) fn check(asked: &Asked, offer: &Offer) -> Result<(), Invalid> {
    let request = &asked.request;
    let (Some(logprobs), Reply::Whole) = (request.logprobs, asked.reply) else {
        return Ok(());
    };
    let context = offer.facts().map(|facts| facts.context_tokens);
    let limits = [request.output.tokens, context, offer.max_output_tokens];
    let Some(tokens) = limits.into_iter().flatten().min() else {
        return Ok(());
    };
    let texts = u64::from(asked.prompts()) * u64::from(request.choices.get());
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

//! Log-probabilities in the model's own distribution, before bias, penalties and filters.

use weir_engine::Token;

use super::Scratch;
use super::filter;
use super::logits::Logits;
use super::weights::{Candidate, Softmax};

/// The log-probability that is reported of a token without a chance, as OpenAI does: JSON has no −∞.
pub const LOGPROB_MIN: f32 = -9999.0;

/// A token's log-probability in a distribution, and those of the best tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// ln p, at least [`LOGPROB_MIN`].
    pub logprob: f32,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(Token, f32)>,
}

/// A token's rank: how many tokens are at least as likely by a model's logits, itself included.
pub fn rank(raw: &[f32], token: Token) -> u32 {
    let own = raw
        .get(token as usize)
        .copied()
        .unwrap_or(f32::NEG_INFINITY);
    let better = raw.iter().filter(|&&logit| logit >= own).count();
    u32::try_from(better.max(1)).expect("a vocabulary's size fits a u32")
}

/// Scores `token`, and the best `top` tokens, by a model's logits.
pub fn score(raw: &[f32], token: Token, top: usize, scratch: &mut Scratch) -> Score {
    let buffers = &mut scratch.buffers;
    let logits = Logits::new(raw, &[]);
    let softmax = Softmax {
        max: logits.best(&mut buffers.maxima).logit,
        scale: 1.0,
    };
    let log_sum = f64::from(softmax.max) + logits.sum(softmax).ln();
    let chosen = raw.get(token as usize).copied();
    let mut score = Score {
        logprob: logprob(chosen.unwrap_or(f32::NEG_INFINITY), log_sum),
        top: Vec::new(),
    };
    if top > 0 {
        filter::best(top, &logits, buffers);
        let ranked = buffers.ranked.iter();
        score.top = ranked
            .map(|&Candidate { token, logit, .. }| (token, logprob(logit, log_sum)))
            .collect();
    }
    score
}

fn logprob(logit: f32, log_sum: f64) -> f32 {
    let logprob = (f64::from(logit) - log_sum) as f32;
    // A broken model's logits may be no numbers.
    if logprob >= LOGPROB_MIN {
        logprob.min(0.0)
    } else {
        LOGPROB_MIN
    }
}

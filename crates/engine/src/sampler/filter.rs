//! The filters: which tokens may be chosen, found without looking at all of them twice.

use std::cmp::Ordering;

use super::Buffers;
use super::logits::{Logits, Softmax};
use crate::Token;
use crate::request::Sampling;

/// How many of the best are looked at first when nobody knows how many top_p needs.
const FIRST: usize = 64;
/// How many times more each time that was not enough.
const GROWTH: usize = 8;
/// A set within this share of top_p has reached it: the numbers are rounded to 24 bits on their way,
/// and three of ten equal tokens are 0.3.
const ROUNDING: f64 = 1e-6;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: Token,
    pub(super) logit: f32,
    pub(super) weight: f32,
}

pub(super) fn keeps_all(sampling: &Sampling) -> bool {
    sampling.min_p() == 0.0 && sampling.top_k() == 0 && sampling.top_p() >= 1.0
}

/// Leaves in `buffers.candidates` the tokens that min_p, top_k and top_p keep, with their weights.
/// `buffers.maxima` are the logits' own.
pub(super) fn support(
    sampling: &Sampling,
    logits: &Logits<'_>,
    softmax: Softmax,
    buffers: &mut Buffers,
) {
    let top_p = f64::from(sampling.top_p());
    if sampling.min_p() == 0.0 && sampling.top_k() == 0 {
        let needed = top_p * logits.sum(softmax, &mut buffers.sums);
        return reach(needed, logits, softmax, buffers);
    }
    let k = match sampling.top_k() {
        0 => usize::MAX,
        k => k as usize,
    };
    let floor = min_p_floor(sampling, softmax).max(best_floor(k, buffers));
    logits.collect(floor, &buffers.maxima, &mut buffers.candidates);
    keep_best(k, &mut buffers.candidates);
    let sum = weigh(softmax, &mut buffers.candidates);
    if top_p < 1.0 {
        truncate(top_p * sum, &mut buffers.candidates);
    }
}

/// Draws one candidate by weight. `None` if there is none.
pub(super) fn draw(candidates: &[Candidate], random: f64) -> Option<Token> {
    let sum: f64 = candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum();
    let mut left = random * sum;
    let mut chosen = None;
    for candidate in candidates {
        chosen = Some(candidate.token);
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            break;
        }
    }
    chosen
}

/// The best tokens until their weights reach `needed`: of a few at first, and of more if they don't.
fn reach(needed: f64, logits: &Logits<'_>, softmax: Softmax, buffers: &mut Buffers) {
    let mut k = FIRST;
    loop {
        let floor = best_floor(k, buffers);
        logits.collect(floor, &buffers.maxima, &mut buffers.candidates);
        weigh(softmax, &mut buffers.candidates);
        if truncate(needed, &mut buffers.candidates) || floor == f32::NEG_INFINITY {
            return;
        }
        k = k.saturating_mul(GROWTH);
    }
}

/// A logit that at least the best `k` tokens have: so many groups have one as high.
fn best_floor(k: usize, buffers: &mut Buffers) -> f32 {
    if k > buffers.maxima.len() {
        return f32::NEG_INFINITY;
    }
    buffers.selection.clone_from(&buffers.maxima);
    *buffers
        .selection
        .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a))
        .1
}

/// The logit from which a token has min_p times the weight of the best.
fn min_p_floor(sampling: &Sampling, softmax: Softmax) -> f32 {
    let below = f64::from(sampling.min_p()).ln() * f64::from(sampling.temperature());
    let floor = f64::from(softmax.max) + below;
    let rounded = floor as f32;
    if f64::from(rounded) < floor {
        rounded.next_up()
    } else {
        rounded
    }
}

fn keep_best(k: usize, candidates: &mut Vec<Candidate>) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, rank);
        candidates.truncate(k);
    }
}

/// Sets the weights, and drops tokens so unlikely that they have none.
fn weigh(softmax: Softmax, candidates: &mut Vec<Candidate>) -> f64 {
    let mut sum = 0.0;
    candidates.retain_mut(|candidate| {
        candidate.weight = softmax.weight(candidate.logit);
        sum += f64::from(candidate.weight);
        candidate.weight > 0.0
    });
    sum
}

/// Keeps the smallest set of the best whose weights reach `needed`, the one that crosses it included.
/// `false`, and all are kept, if they don't reach it. Sorts no more of them than it takes.
fn truncate(needed: f64, candidates: &mut Vec<Candidate>) -> bool {
    let needed = needed * (1.0 - ROUNDING);
    let (mut sum, mut start, mut step) = (0.0, 0, FIRST);
    while start < candidates.len() {
        let rest = &mut candidates[start..];
        let step_now = step.min(rest.len());
        if step_now < rest.len() {
            rest.select_nth_unstable_by(step_now - 1, rank);
        }
        rest[..step_now].sort_unstable_by(rank);
        for (i, candidate) in rest[..step_now].iter().enumerate() {
            sum += f64::from(candidate.weight);
            if sum >= needed {
                candidates.truncate(start + i + 1);
                return true;
            }
        }
        start += step_now;
        step = step.saturating_mul(GROWTH);
    }
    false
}

/// Best first; of equals the lowest id.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    // Not `total_cmp`, which tells 0 from −0; no candidate is NaN.
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.token.cmp(&b.token))
}

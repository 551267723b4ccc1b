//! The filters min_p, top_k and top_p: which tokens may be chosen, found without looking at all of them twice.

use std::cmp::Ordering;

use weir_engine::request::Sampling;

use super::Buffers;
use super::logits::Logits;
use super::weights::{Candidate, Softmax};

/// How many of the best tokens are looked at first when it isn't known how many top_p needs.
const FIRST: usize = 64;
/// The factor by which that number grows each time it wasn't enough.
const GROWTH: usize = 8;
/// The most candidates that are sorted to find the one that crosses top_p; more are halved first.
const SORTED: usize = 32;
/// A set this close to top_p, relative to it, has reached it: the numbers are rounded to 24 bits on their way, and
/// three of ten equal tokens are 0.3.
const ROUNDING: f64 = 1e-6;

pub(super) fn keeps_all(sampling: &Sampling) -> bool {
    sampling.min_p() == 0.0 && sampling.top_k() == 0 && sampling.top_p() >= 1.0
}

/// Leaves in `buffers.candidates` the tokens that min_p, top_k and top_p keep, by id and with their weights.
/// `buffers.maxima` are those of `logits`.
pub(super) fn support(
    sampling: &Sampling,
    logits: &Logits<'_>,
    softmax: Softmax,
    buffers: &mut Buffers,
) {
    let top_p = f64::from(sampling.top_p());
    if sampling.min_p() == 0.0 && sampling.top_k() == 0 {
        let needed = top_p * logits.sum(softmax);
        return reach(needed, logits, softmax, buffers);
    }
    let k = match sampling.top_k() {
        0 => usize::MAX,
        k => k as usize,
    };
    let floor = min_p_floor(sampling, softmax).max(best_floor(k, buffers));
    logits.collect(floor, &buffers.maxima, &mut buffers.candidates);
    keep_best(k, &mut buffers.candidates, &mut buffers.ranked);
    let sum = weigh(softmax, &mut buffers.candidates);
    if top_p < 1.0 {
        truncate(top_p * sum, &mut buffers.candidates, &mut buffers.ranked);
    }
}

/// Leaves the best `k` tokens in `buffers.ranked`, best first. `buffers.maxima` are those of `logits`.
pub(super) fn best(k: usize, logits: &Logits<'_>, buffers: &mut Buffers) {
    let floor = best_floor(k, buffers);
    logits.collect(floor, &buffers.maxima, &mut buffers.candidates);
    keep_best(k, &mut buffers.candidates, &mut buffers.ranked);
    buffers.ranked.clone_from(&buffers.candidates);
    buffers.ranked.sort_unstable_by(rank);
}

/// Leaves the best tokens until their weights reach `needed`: looks at a few first, and at more if they don't reach it.
fn reach(needed: f64, logits: &Logits<'_>, softmax: Softmax, buffers: &mut Buffers) {
    let mut k = FIRST;
    loop {
        let floor = best_floor(k, buffers);
        logits.collect(floor, &buffers.maxima, &mut buffers.candidates);
        let sum = weigh(softmax, &mut buffers.candidates);
        if sum >= needed || floor == f32::NEG_INFINITY {
            return truncate(needed, &mut buffers.candidates, &mut buffers.ranked);
        }
        k = k.saturating_mul(GROWTH);
    }
}

/// A lower bound of the k-th largest logit, from the maxima of groups: at least k groups have a maximum this high. −∞
/// if there are fewer groups.
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

/// The least logit with which a token has at least min_p times the weight of the best.
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

fn keep_best(k: usize, candidates: &mut Vec<Candidate>, ranked: &mut Vec<Candidate>) {
    if k < candidates.len() {
        ranked.clone_from(candidates);
        let last = *ranked.select_nth_unstable_by(k - 1, rank).1;
        keep_until(&last, candidates);
    }
}

/// Sets the weights, drops tokens so unlikely that their weight is 0, and returns the sum.
fn weigh(softmax: Softmax, candidates: &mut Vec<Candidate>) -> f64 {
    let mut sum = 0.0;
    candidates.retain_mut(|candidate| {
        candidate.weight = softmax.weight(candidate.logit);
        sum += f64::from(candidate.weight);
        candidate.weight > 0.0
    });
    sum
}

/// Keeps the smallest set of the best tokens whose weights reach `needed`, with the token that crosses it; all, if they
/// don't reach it.
fn truncate(needed: f64, candidates: &mut Vec<Candidate>, ranked: &mut Vec<Candidate>) {
    ranked.clone_from(candidates);
    if let Some(last) = crossing(needed * (1.0 - ROUNDING), ranked) {
        keep_until(&last, candidates);
    }
}

/// The candidate at which the sum of weights, best first, reaches `needed`. Each round ranks half of the candidates
/// against the other half (quickselect), and only a few are ever sorted.
fn crossing(needed: f64, mut candidates: &mut [Candidate]) -> Option<Candidate> {
    let mut sum = 0.0;
    while candidates.len() > SORTED {
        let middle = candidates.len() / 2;
        candidates.select_nth_unstable_by(middle, rank);
        let (better, worse) = candidates.split_at_mut(middle);
        let with_better = sum
            + better
                .iter()
                .map(|candidate| f64::from(candidate.weight))
                .sum::<f64>();
        if with_better >= needed {
            candidates = better;
        } else {
            sum = with_better;
            candidates = worse;
        }
    }
    candidates.sort_unstable_by(rank);
    candidates.iter().copied().find(|candidate| {
        sum += f64::from(candidate.weight);
        sum >= needed
    })
}

fn keep_until(last: &Candidate, candidates: &mut Vec<Candidate>) {
    candidates.retain(|candidate| rank(candidate, last) != Ordering::Greater);
}

/// Orders candidates best first, and equal ones by id.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    // Not `total_cmp`, which tells 0 from −0; no candidate is NaN.
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.token.cmp(&b.token))
}

//! Chooses the next token of a choice from a model's logits.
//!
//! The definitions are vLLM's, in its order: bias, then penalties, on raw logits → temperature → min_p
//! → top_k → top_p over what is left → choice. Equal logits rank by token id, lowest first, so every
//! filter keeps a prefix of one total order: the best token always stays.
//!
//! A vocabulary has up to 262k entries, and a handful of them decide. So nothing here sorts or copies
//! all logits: [`logits`] reads them in blocks, [`filter`] collects the few that can be chosen.

mod adjust;
mod exponential_race;
mod filter;
mod logits;
mod logprobs;
mod simd;
#[cfg(test)]
mod tests;
mod weights;

use adjust::Adjustments;
use exponential_race::Key;
use logits::{Best, Logits};
pub use logprobs::{LOGPROB_MIN, Score, rank, score};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weights::{Candidate, Softmax};
use weir_engine::Token;
use weir_engine::request::Sampling;

/// Below this temperature the best token is taken, as in vLLM: the division would overflow.
const TEMPERATURE_MIN: f32 = 1e-5;

/// Samples the tokens of one choice: owns its penalty counts and its random numbers.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    adjustments: Adjustments,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler for choice number `choice`, whose random numbers depend on that number and the seed
    /// alone: not on what else is in a batch.
    pub fn new(sampling: &Sampling, prompt: &[Token], choice: u32) -> Self {
        Sampler {
            adjustments: Adjustments::new(sampling, prompt),
            random: random_stream(sampling.seed().unwrap_or(0), choice),
            sampling: sampling.clone(),
        }
    }

    /// Chooses a token and records it; the k-th call uses the k-th random number.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut Scratch) -> Token {
        self.choose(logits, None, scratch).token
    }

    /// Like [`sample`](Self::sample), but among the tokens whose bit is set in `allowed`, as if the others had no
    /// probability at all. `None` if none of them has any: the caller's own bias forbids them, or the model is broken.
    pub fn sample_allowed(
        &mut self,
        logits: &[f32],
        allowed: &[u32],
        scratch: &mut Scratch,
    ) -> Option<Token> {
        let best = self.choose(logits, Some(allowed), scratch);
        (best.logit > f32::NEG_INFINITY).then_some(best.token)
    }

    /// Like [`sample_allowed`](Self::sample_allowed), but without the tokens of `banned`. `allowed` may be `None`, for
    /// all.
    pub fn sample_without(
        &mut self,
        logits: &[f32],
        allowed: Option<&[u32]>,
        banned: &[Token],
        scratch: &mut Scratch,
    ) -> Option<Token> {
        let best = self.choose_without(logits, allowed, banned, scratch);
        (best.logit > f32::NEG_INFINITY).then_some(best.token)
    }

    /// The chosen token, with the highest logit of the candidates (which needn't be the token's own).
    fn choose(&mut self, logits: &[f32], allowed: Option<&[u32]>, scratch: &mut Scratch) -> Best {
        self.choose_without(logits, allowed, &[], scratch)
    }

    fn choose_without(
        &mut self,
        logits: &[f32],
        allowed: Option<&[u32]>,
        banned: &[Token],
        scratch: &mut Scratch,
    ) -> Best {
        let key = Key::new(self.random.next_u64());
        self.adjustments.apply(logits, &mut scratch.overrides);
        ban(banned, logits.len(), &mut scratch.overrides);
        let logits = Logits::new(logits, &scratch.overrides).masked(allowed);
        let best = logits.best(&mut scratch.buffers.maxima);
        let token = choose(&self.sampling, &logits, best, &mut scratch.buffers, key);
        let is_free = allowed.is_none() && banned.is_empty();
        if best.logit > f32::NEG_INFINITY || is_free {
            self.adjustments.record(token);
        }
        Best { token, ..best }
    }
}

/// Sets the logits of banned tokens to −∞. `overrides` stays sorted by token id.
fn ban(banned: &[Token], vocabulary: usize, overrides: &mut Vec<(Token, f32)>) {
    if banned.is_empty() {
        return;
    }
    overrides.retain(|(token, _)| !banned.contains(token));
    let known = banned
        .iter()
        .filter(|&&token| (token as usize) < vocabulary);
    overrides.extend(known.map(|&token| (token, f32::NEG_INFINITY)));
    overrides.sort_unstable_by_key(|&(token, _)| token);
    overrides.dedup_by_key(|&mut (token, _)| token);
}

/// Buffers for [`Sampler::sample`]: one per engine thread, shared by all samplers.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The logits that bias and penalties have changed, by token.
    overrides: Vec<(Token, f32)>,
    buffers: Buffers,
}

#[derive(Debug, Default)]
struct Buffers {
    /// The highest logit of each group of logits.
    maxima: Vec<f32>,
    /// A copy of `maxima`, to select from.
    selection: Vec<f32>,
    /// For each group, a time before which none of its tokens arrives in the race.
    times: Vec<f32>,
    /// The tokens that may be chosen, by id.
    candidates: Vec<Candidate>,
    /// A copy of `candidates`, to rank.
    ranked: Vec<Candidate>,
}

/// Draws a token. `best` and `buffers.maxima` are those of `logits`.
fn choose(
    sampling: &Sampling,
    logits: &Logits<'_>,
    best: Best,
    buffers: &mut Buffers,
    key: Key,
) -> Token {
    let greedy = sampling.temperature() < TEMPERATURE_MIN || sampling.top_k() == 1;
    // A broken model's logits (infinite, or none that is a number) leave nothing to draw from.
    if greedy || !best.logit.is_finite() {
        return best.token;
    }
    let softmax = Softmax {
        max: best.logit,
        scale: sampling.temperature().recip(),
    };
    if filter::keeps_all(sampling) {
        return logits
            .draw(softmax, &buffers.maxima, key, &mut buffers.times)
            .unwrap_or(best.token);
    }
    filter::support(sampling, logits, softmax, buffers);
    exponential_race::draw(&buffers.candidates, key).unwrap_or(best.token)
}

fn random_stream(seed: i64, choice: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(u64::from(choice));
    random
}

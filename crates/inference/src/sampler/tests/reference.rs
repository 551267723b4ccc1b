//! The sampler's definition, naively: f64, a sort of the whole vocabulary, no shortcuts.

use weir_engine::Token;
use weir_engine::request::Sampling;

/// How near to top_p, relative to it, a sum must be to let sets on both sides of it count as right.
const TOLERANCE: f64 = 4e-6;

/// The exponent below which a weight is 0 in f32, so that the token has no chance.
const UNLIKELY: f64 = -87.0;

/// All tokens with their weights, best first, and how many of them the filters keep: `fewest` to `most`.
pub(super) struct Reference {
    ranked: Vec<(Token, f64)>,
    fewest: usize,
    most: usize,
    greedy: bool,
}

impl Reference {
    pub(super) fn new(
        sampling: &Sampling,
        logits: &[f32],
        prompt: &[Token],
        generated: &[Token],
    ) -> Self {
        let adjusted = (0..)
            .zip(logits)
            .map(|(token, &logit)| (token, adjust(sampling, token, logit, prompt, generated)));
        let mut ranked: Vec<(Token, f64)> = adjusted.collect();
        ranked.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));

        let max = ranked[0].1;
        for (_, weight) in &mut ranked {
            let exponent = (*weight - max) / f64::from(sampling.temperature());
            *weight = if exponent < UNLIKELY {
                0.0
            } else {
                exponent.exp()
            };
        }
        let floor = f64::from(sampling.min_p());
        let mut kept = ranked
            .iter()
            .take_while(|&&(_, weight)| weight > 0.0 && weight >= floor)
            .count();
        if sampling.top_k() > 0 {
            kept = kept.min(sampling.top_k() as usize);
        }
        let left: f64 = ranked[..kept].iter().map(|(_, weight)| weight).sum();
        let top_p = f64::from(sampling.top_p());
        let reaching = |share: f64| {
            let mut sum = 0.0;
            let reached = ranked[..kept].iter().position(|(_, weight)| {
                sum += weight / left;
                sum >= share
            });
            reached.map_or(kept, |last| last + 1)
        };
        let (fewest, most) = match sampling.top_p() {
            1.0 => (kept, kept),
            _ => (
                reaching(top_p * (1.0 - TOLERANCE)),
                reaching(top_p * (1.0 + TOLERANCE)),
            ),
        };
        Reference {
            ranked,
            fewest,
            most,
            greedy: sampling.top_k() == 1,
        }
    }

    pub(super) fn best(&self) -> Token {
        self.ranked[0].0
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.fewest, self.most)
    }

    /// Whether these tokens, sorted by id, are exactly those that may be chosen.
    pub(super) fn allows(&self, support: &[Token]) -> bool {
        let mut expected: Vec<Token> = self
            .ranked
            .iter()
            .take(support.len())
            .map(|&(token, _)| token)
            .collect();
        expected.sort_unstable();
        (self.fewest..=self.most).contains(&support.len()) && support == expected
    }

    pub(super) fn may_be(&self, token: Token) -> bool {
        let most = if self.greedy { 1 } else { self.most.max(1) };
        self.ranked[..most].iter().any(|&(other, _)| other == token)
    }

    /// The probability of each token, by id.
    pub(super) fn distribution(&self) -> Vec<f64> {
        let sum: f64 = self.ranked[..self.most]
            .iter()
            .map(|(_, weight)| weight)
            .sum();
        let mut distribution = vec![0.0; self.ranked.len()];
        for &(token, weight) in &self.ranked[..self.most] {
            distribution[token as usize] = weight / sum;
        }
        distribution
    }
}

fn adjust(
    sampling: &Sampling,
    token: Token,
    logit: f32,
    prompt: &[Token],
    generated: &[Token],
) -> f64 {
    let mut logit = if logit.is_nan() {
        f32::NEG_INFINITY
    } else {
        logit
    };
    if let Some(&(_, bias)) = sampling
        .logit_bias()
        .iter()
        .find(|&&(biased, _)| biased == token)
    {
        logit = if bias == -100.0 {
            f32::NEG_INFINITY
        } else {
            logit + bias
        };
    }
    let count = generated.iter().filter(|&&other| other == token).count();
    if prompt.contains(&token) || count > 0 {
        let penalty = sampling.repetition_penalty();
        logit = if logit > 0.0 {
            logit / penalty
        } else {
            logit * penalty
        };
    }
    if count > 0 {
        logit -= sampling.frequency_penalty() * count as f32;
        logit -= sampling.presence_penalty();
    }
    f64::from(logit)
}

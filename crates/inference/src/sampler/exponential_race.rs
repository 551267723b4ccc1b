//! The draw, an exponential race: each token arrives at a random time, and the first to arrive is chosen.
//!
//! A token of weight w arrives after −ln(1 − u) / w, so that it is the first with probability w / Σ w (the same as the
//! highest of logits with Gumbel noise). Its random number u depends on the draw and the token alone. So where kernels
//! round differently, another token wins about as seldom as the probabilities moved. Inverse transform sampling, a walk
//! along their sums, would meet another of the unlikely tokens nearly each time.

use weir_engine::Token;

use super::weights::Candidate;

/// The key of one draw, from which its tokens' random numbers are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    before: u32,
    between: u32,
}

impl Key {
    pub(super) fn new(random: u64) -> Self {
        Key {
            before: random as u32,
            between: (random >> 32) as u32,
        }
    }

    /// A token's random number, of all 32 bits: `lowbias32` of Wellons' hash-prospector, with a key before and
    /// between its multiplications.
    #[inline(always)]
    pub(super) fn number(self, token: Token) -> u32 {
        let mut x = token.wrapping_add(self.before);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d);
        x ^= x >> 15;
        x = x.wrapping_add(self.between).wrapping_mul(0x846c_a68b);
        x ^ x >> 16
    }
}

#[derive(Debug)]
pub(super) struct Race {
    key: Key,
    first: Option<Token>,
    time: f64,
}

impl Race {
    pub(super) fn new(key: Key) -> Self {
        Race {
            key,
            first: None,
            time: f64::INFINITY,
        }
    }

    /// The earliest time at which a token has arrived so far.
    pub(super) fn time(&self) -> f64 {
        self.time
    }

    pub(super) fn run(&mut self, token: Token, weight: f32) {
        let weight = f64::from(weight);
        let u = unit(self.key.number(token));
        // u ≤ −ln(1 − u) spares most tokens the logarithm.
        if weight > 0.0 && u < self.time * weight {
            let time = -(-u).ln_1p() / weight;
            if time < self.time {
                (self.first, self.time) = (Some(token), time);
            }
        }
    }

    /// The token that arrived first; `None` if none has weight.
    pub(super) fn first(self) -> Option<Token> {
        self.first
    }
}

pub(super) fn draw(candidates: &[Candidate], key: Key) -> Option<Token> {
    let mut race = Race::new(key);
    for candidate in candidates {
        race.run(candidate.token, candidate.weight);
    }
    race.first()
}

/// A number between 0 and 1, neither included.
fn unit(number: u32) -> f64 {
    (f64::from(number) + 0.5) / (1_u64 << 32) as f64
}

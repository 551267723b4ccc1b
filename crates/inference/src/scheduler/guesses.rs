//! Draft tokens of a choice and how likely they are: the tokens that followed its last few tokens where these were
//! before, in its prompt or its answer ("prompt lookup decoding", Saxena 2023).
//!
//! Each predicted token is compared with the token that really comes, also when it wasn't drafted. So a choice that
//! begins to repeat what it has read is noticed without spending tokens of the batch on it.

use weir_engine::Token;

use crate::scheduler::ngrams::{LONG, Ngrams, SHORT};
use crate::scheduler::sequence::Tokens;

/// The initial probability that a prediction is right: after a short n-gram, after a long one, and after a run of
/// several right predictions.
const CHANCES: [f32; 3] = [0.3, 0.6, 0.85];
/// From this many matching tokens in a row on, a match is more than a coincidence.
const RUN: u32 = 8;
/// The weight of the newest prediction in the average of its probability.
const NEWEST: f32 = 0.125;

/// The state of one choice's speculative decoding.
#[derive(Debug)]
pub(super) struct Guesses {
    /// The n-grams that are followed by a token of the answer. The earlier ones are the prompt's.
    own: Ngrams,
    /// The probability that the next prediction is right, by `class` of the number of matching tokens.
    chances: [f32; 3],
    source: Option<Source>,
}

/// A place in the text where the last tokens were before.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// The position after them, whose token is predicted.
    next: u32,
    alike: u32,
}

/// A draft: predicted tokens, one after the other.
#[derive(Debug)]
pub(super) struct Guess {
    source: Source,
    chances: [f32; 3],
    pub(super) tokens: Vec<Token>,
    /// The probability that `tokens` and the next predicted token all come.
    pub(super) chance: f32,
}

impl Guesses {
    pub(super) fn new(prompt_tokens: u32) -> Self {
        Guesses {
            own: Ngrams::new(prompt_tokens),
            chances: CHANCES,
            source: None,
        }
    }

    /// An empty draft, if the last tokens were somewhere before; [`Guess::extend`] adds tokens from there.
    pub(super) fn begin(&mut self, prompt: &Ngrams, tokens: &Tokens) -> Option<Guess> {
        self.own.read(tokens, tokens.len());
        let source = match self.source {
            Some(source) => source,
            None => self.find(prompt, tokens)?,
        };
        self.source = Some(source);
        Some(Guess {
            source,
            chances: self.chances,
            tokens: Vec::new(),
            chance: self.chances[class(source.alike)],
        })
    }

    fn find(&self, prompt: &Ngrams, tokens: &Tokens) -> Option<Source> {
        [LONG, SHORT].into_iter().find_map(|n| {
            let next = self
                .own
                .find(tokens, n)
                .or_else(|| prompt.find(tokens, n))?;
            let alike = u32::try_from(n).expect("n is small");
            Some(Source { next, alike })
        })
    }

    /// Learns that `token` follows `tokens`.
    pub(super) fn learn(&mut self, tokens: &Tokens, token: Token) {
        let Some(source) = &mut self.source else {
            return;
        };
        let right = tokens.at(source.next) == Some(token);
        let chance = &mut self.chances[class(source.alike)];
        *chance += (f32::from(u8::from(right)) - *chance) * NEWEST;
        if right {
            source.next += 1;
            source.alike += 1;
        } else {
            self.source = None;
        }
    }
}

impl Guess {
    /// Adds one predicted token.
    pub(super) fn extend(&mut self, tokens: &Tokens) {
        let guessed = u32::try_from(self.tokens.len()).expect("a draft is short");
        // A draft that reaches the end of the text continues with its own tokens from their beginning.
        let place = self.source.next + guessed;
        let token = tokens
            .at(place)
            .unwrap_or_else(|| self.tokens[(place - tokens.len()) as usize]);
        self.tokens.push(token);
        self.chance *= self.chances[class(self.source.alike + guessed + 1)];
    }
}

fn class(alike: u32) -> usize {
    match alike {
        RUN.. => 2,
        alike if alike as usize >= LONG => 1,
        _ => 0,
    }
}

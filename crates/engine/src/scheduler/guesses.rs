//! What a choice may say next, and how likely that is: what followed its last few tokens where they were before, in its
//! prompt or in what it has said ("prompt lookup decoding", Saxena 2023).
//!
//! Each guess is compared with the token that really comes, also when it wasn't drafted: so a choice that
//! begins to repeat what it has read is noticed without a row for it.

use crate::Token;
use crate::scheduler::ngrams::{LONG, Ngrams, SHORT};
use crate::scheduler::sequence::Tokens;

/// How likely a guess is right before anything was learnt: after a short n-gram, a long one, and a run of several.
const CHANCES: [f32; 3] = [0.3, 0.6, 0.85];
/// As many tokens in a row that were as guessed are more than a coincidence.
const RUN: u32 = 8;
/// Weight of the newest guess.
const NEWEST: f32 = 0.125;

/// Of one choice.
#[derive(Debug)]
pub(super) struct Guesses {
    /// N-grams that something of its answer follows. Those before are the prompt's.
    own: Ngrams,
    /// By how many tokens are alike already.
    chances: [f32; 3],
    source: Option<Source>,
}

/// Where the last tokens were before.
#[derive(Debug, Clone, Copy)]
struct Source {
    /// The position behind them.
    next: u32,
    alike: u32,
}

/// Tokens that may come, one after the other.
#[derive(Debug)]
pub(super) struct Guess {
    source: Source,
    chances: [f32; 3],
    pub(super) tokens: Vec<Token>,
    /// How likely the token behind these comes, and all these before it.
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

    /// Nothing yet, but the place is known where more would come from.
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

    /// `token` comes next behind `tokens`.
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
    /// Guesses one token more.
    pub(super) fn extend(&mut self, tokens: &Tokens) {
        let guessed = u32::try_from(self.tokens.len()).expect("a draft is short");
        // Where the place runs into the end, what is guessed goes on as it began.
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

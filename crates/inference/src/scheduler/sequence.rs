//! A choice's tokens and its state in the scheduler.

use std::iter::zip;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use weir_engine::Token;

use crate::scheduler::guesses::Guesses;
use crate::scheduler::snapshots::BranchPoints;
use crate::scheduler::{ChoiceId, Job};

/// A choice and its known tokens. How many of them are in the cache, [`Kv`](crate::scheduler::Kv) knows.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) tokens: Tokens,
    output_max: u32,
    /// Choices of the same prompt, this one included.
    siblings: Range<u32>,
    /// The scope of the prefix cache: sequences with the same salt share prefixes.
    pub(super) cache_salt: Option<Arc<str>>,
    pub(super) account: Arc<str>,
    /// The number of the last step that computed tokens of the choice.
    pub(super) stepped: u64,
    /// The state of speculative decoding, if it is on for this choice.
    pub(super) guesses: Option<Guesses>,
    pub(super) marks: BranchPoints,
    pub(super) aside: PromptAside,
    pub(super) repeatable: bool,
}

/// Whether a choice's prompt is computed by background prefill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptAside {
    /// If the prompt is long enough.
    Open,
    /// Yes; this many tokens were computed when its last chunk ended or its first one began. Background prefill
    /// computes the rest, however short, unless steps have computed some of it meanwhile.
    Begun(u32),
    /// No: the model had no cells for it or failed.
    Refused,
}

/// A prompt and the tokens generated after it.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) prompt: Arc<[Token]>,
    generated: Vec<Token>,
}

impl Sequence {
    pub(super) fn new(prompt: Arc<[Token]>, siblings: Range<u32>, job: &Job) -> Self {
        let guesses = job.drafts.then(|| Guesses::new(count(&prompt)));
        Sequence {
            tokens: Tokens {
                prompt,
                generated: Vec::new(),
            },
            output_max: job.output_max,
            siblings,
            cache_salt: job.cache_salt.clone(),
            account: Arc::clone(&job.account),
            stepped: 0,
            guesses,
            marks: BranchPoints::default(),
            aside: PromptAside::Open,
            repeatable: job.repeatable,
        }
    }

    pub(super) fn known(&self) -> u32 {
        self.tokens.len()
    }

    pub(super) fn prompt_length(&self) -> u32 {
        self.tokens.prompt_length()
    }

    /// The number of tokens that the choice may still generate.
    pub(super) fn remaining(&self) -> u32 {
        self.output_max - count(&self.tokens.generated)
    }

    pub(super) fn push(&mut self, token: Token) {
        if let Some(guesses) = &mut self.guesses {
            guesses.learn(&self.tokens, token);
        }
        self.tokens.generated.push(token);
    }
}

impl Tokens {
    pub(super) fn len(&self) -> u32 {
        count(&self.prompt) + count(&self.generated)
    }

    pub(super) fn prompt_length(&self) -> u32 {
        count(&self.prompt)
    }

    /// The tokens from position `from` on.
    pub(super) fn from(&self, from: u32) -> impl Iterator<Item = Token> {
        let prompt = self.prompt.get(from as usize..).unwrap_or_default();
        let generated = self
            .generated
            .get((from as usize).saturating_sub(self.prompt.len())..)
            .unwrap_or_default();
        prompt.iter().chain(generated).copied()
    }

    /// The number of tokens of the common prefix.
    pub(super) fn common(&self, other: &Tokens) -> u32 {
        let prompts = if Arc::ptr_eq(&self.prompt, &other.prompt) {
            self.prompt.len()
        } else {
            let both = zip(&*self.prompt, &*other.prompt);
            both.take_while(|(a, b)| a == b).count()
        };
        if prompts < self.prompt.len().min(other.prompt.len()) {
            return u32::try_from(prompts).expect("no longer than a prompt");
        }
        let from = u32::try_from(prompts).expect("no longer than a prompt");
        let rest = zip(self.from(from), other.from(from)).take_while(|(a, b)| a == b);
        from + u32::try_from(rest.count()).expect("no longer than the context")
    }

    pub(super) fn at(&self, position: u32) -> Option<Token> {
        let position = position as usize;
        let generated = || self.generated.get(position - self.prompt.len());
        self.prompt.get(position).or_else(generated).copied()
    }
}

impl ChoiceId {
    pub(super) fn siblings(self, sequence: &Sequence) -> RangeInclusive<ChoiceId> {
        let Range { start, end } = sequence.siblings;
        ChoiceId {
            choice: start,
            ..self
        }..=ChoiceId {
            choice: end - 1,
            ..self
        }
    }
}

fn count(tokens: &[Token]) -> u32 {
    u32::try_from(tokens.len()).expect("no longer than the context")
}

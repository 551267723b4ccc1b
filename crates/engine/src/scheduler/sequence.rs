//! The tokens of a choice, and of the prompt that several choices share.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::Token;
use crate::model::SequenceId;
use crate::scheduler::ChoiceId;

/// A choice's tokens that are known; how many of them are in the cache, the cache knows.
#[derive(Debug)]
pub(super) struct Sequence {
    prompt: Arc<[Token]>,
    generated: Vec<Token>,
    output_max: u32,
    /// Choices of the same prompt, this one included.
    siblings: Range<u32>,
}

impl Sequence {
    pub(super) fn new(prompt: Arc<[Token]>, siblings: Range<u32>, output_max: u32) -> Self {
        Sequence {
            prompt,
            generated: Vec::new(),
            output_max,
            siblings,
        }
    }

    pub(super) fn known(&self) -> u32 {
        count(&self.prompt) + count(&self.generated)
    }

    pub(super) fn prompt_length(&self) -> u32 {
        count(&self.prompt)
    }

    /// Tokens that it may still generate.
    pub(super) fn remaining(&self) -> u32 {
        self.output_max - count(&self.generated)
    }

    pub(super) fn push(&mut self, token: Token) {
        self.generated.push(token);
    }

    /// The known tokens from position `from` on.
    pub(super) fn tokens(&self, from: u32) -> impl Iterator<Item = Token> {
        let prompt = self.prompt.get(from as usize..).unwrap_or_default();
        let generated = self
            .generated
            .get((from as usize).saturating_sub(self.prompt.len())..)
            .unwrap_or_default();
        prompt.iter().chain(generated).copied()
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

/// A prompt without its last token, computed once for several choices: each forks it and computes the
/// last token itself. It lives as long as some of them still wait.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) id: SequenceId,
    prompt: Arc<[Token]>,
    choices: u32,
}

impl Trunk {
    pub(super) fn new(id: SequenceId, of: &Sequence) -> Self {
        Trunk {
            id,
            prompt: Arc::clone(&of.prompt),
            choices: of.siblings.end - of.siblings.start,
        }
    }

    /// Tokens that it is to have.
    pub(super) fn length(&self) -> u32 {
        count(&self.prompt) - 1
    }

    pub(super) fn tokens(&self, from: u32) -> impl Iterator<Item = Token> {
        self.prompt[from as usize..].iter().copied()
    }

    /// Those that it is for; `first` is the first of them.
    pub(super) fn siblings(&self, first: ChoiceId) -> RangeInclusive<ChoiceId> {
        first..=ChoiceId {
            choice: first.choice + self.choices - 1,
            ..first
        }
    }
}

fn count(tokens: &[Token]) -> u32 {
    u32::try_from(tokens.len()).expect("no longer than the context")
}

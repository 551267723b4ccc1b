//! Where a few tokens in a row were before, and so what followed them.

use std::collections::HashMap;

use crate::Token;
use crate::scheduler::sequence::Tokens;

/// More tells more surely what follows, …
pub(super) const LONG: usize = 4;
/// … and fewer are found more often.
pub(super) const SHORT: usize = 2;
/// Tokens that are read for a step: the rest of a long prompt is read for the next ones.
const READ_MAX: u32 = 4_096;

/// The n-grams of a part of a sequence.
#[derive(Debug)]
pub(super) struct Ngrams {
    long: Places<LONG>,
    short: Places<SHORT>,
    /// The next position whose token is read as what follows.
    next: u32,
}

/// The last position behind each n-gram.
#[derive(Debug, Default)]
struct Places<const N: usize>(HashMap<[Token; N], u32>);

impl Ngrams {
    /// Of those that are followed by a token from position `next` on.
    pub(super) fn new(next: u32) -> Self {
        Ngrams {
            long: Places::default(),
            short: Places::default(),
            next,
        }
    }

    /// Reads what is followed by tokens before position `end`, as far as it isn't read.
    pub(super) fn read(&mut self, tokens: &Tokens, end: u32) {
        for place in self.next..end.min(self.next.saturating_add(READ_MAX)) {
            self.long.note(tokens, place);
            self.short.note(tokens, place);
            self.next = place + 1;
        }
    }

    /// The position behind the last n-gram like the one that ends the tokens.
    pub(super) fn find(&self, tokens: &Tokens, n: usize) -> Option<u32> {
        match n {
            LONG => self.long.find(tokens),
            _ => self.short.find(tokens),
        }
    }
}

impl<const N: usize> Places<N> {
    fn note(&mut self, tokens: &Tokens, place: u32) {
        if let Some(ngram) = before(tokens, place) {
            self.0.insert(ngram, place);
        }
    }

    fn find(&self, tokens: &Tokens) -> Option<u32> {
        self.0.get(&before(tokens, tokens.len())?).copied()
    }
}

/// The last N tokens before a position.
fn before<const N: usize>(tokens: &Tokens, end: u32) -> Option<[Token; N]> {
    let begin = (end as usize).checked_sub(N)?;
    let mut ngram = [0; N];
    for (position, token) in (begin..).zip(&mut ngram) {
        *token = tokens.at(u32::try_from(position).ok()?)?;
    }
    Some(ngram)
}

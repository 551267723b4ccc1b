//! An index of n-grams: where each was last, and so which token followed it.

use std::collections::HashMap;

use weir_engine::Token;

use crate::scheduler::sequence::Tokens;

/// The length of the long n-grams, which predict better.
pub(super) const LONG: usize = 4;
/// The length of the short n-grams, which are found more often.
pub(super) const SHORT: usize = 2;
/// The most tokens that are indexed per step; a longer prompt is indexed over several steps.
const READ_MAX: u32 = 4_096;

/// An index of the n-grams of a part of a sequence.
#[derive(Debug)]
pub(super) struct Ngrams {
    long: Places<LONG>,
    short: Places<SHORT>,
    /// The next position to index, as what follows an n-gram.
    next: u32,
}

/// The position after the last occurrence of each n-gram.
#[derive(Debug, Default)]
struct Places<const N: usize>(HashMap<[Token; N], u32>);

impl Ngrams {
    /// An empty index, for n-grams that are followed by a token from position `next` on.
    pub(super) fn new(next: u32) -> Self {
        Ngrams {
            long: Places::default(),
            short: Places::default(),
            next,
        }
    }

    /// Indexes the n-grams that are followed by a token before position `end` and aren't indexed yet, up to
    /// [`READ_MAX`].
    pub(super) fn read(&mut self, tokens: &Tokens, end: u32) {
        for place in self.next..end.min(self.next.saturating_add(READ_MAX)) {
            self.long.note(tokens, place);
            self.short.note(tokens, place);
            self.next = place + 1;
        }
    }

    /// The position after the last indexed n-gram that equals the last `n` tokens; `n` is [`LONG`] or [`SHORT`].
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

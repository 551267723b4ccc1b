//! Prefix sharing with [`Forks::AtEnd`]: the computation of a sequence pauses where others branch off, and a copy of
//! its state there, a snapshot, is kept as a sequence of its own, which all of them fork.
//!
//! Branch points are found by comparing sequences that wait, run, are kept or have expired: snapshots are taken where
//! prompts branch, as in Marconi (Pan et al., Prefix Caching for the Era of Hybrid LLMs, MLSys 2025), and states are
//! kept where conversations end, but not all along the way.

use std::sync::Arc;

use crate::model::{Forks, SequenceId};
use crate::scheduler::prefix::{CacheScope, Origin, SHARED_MIN};
use crate::scheduler::sequence::{Sequence, Tokens};
use crate::scheduler::{ChoiceId, Scheduler};

/// The most branch points of a sequence, beside the end of its prompt.
const MARKS_MAX: usize = 8;
/// The most waiting choices that are compared with a sequence.
const WAITING_SEEN: usize = 64;

/// The branch points of a sequence, at which its computation pauses.
#[derive(Debug, Default)]
pub(super) struct BranchPoints {
    /// Positions in ascending order, at least [`SHARED_MIN`] apart.
    places: Vec<u32>,
    /// The number of tokens from the start that other sequences have as well, so that no branch point is needed there.
    shared: u32,
}

impl BranchPoints {
    fn new(shared: u32) -> Self {
        BranchPoints {
            places: Vec::new(),
            shared,
        }
    }

    /// Adds a branch point, unless it lies before `there`, up to which the sequence is computed, or within the shared
    /// tokens.
    fn add(&mut self, place: u32, there: u32) {
        if place < there || place < self.shared + SHARED_MIN {
            return;
        }
        let near = |other: &&mut u32| other.abs_diff(place) < SHARED_MIN;
        if let Some(near) = self.places.iter_mut().find(near) {
            // The earlier one of two near points serves both.
            *near = place.min(*near);
        } else if self.places.len() < MARKS_MAX {
            let at = self.places.partition_point(|&other| other < place);
            self.places.insert(at, place);
        }
    }

    /// The first branch point after `there`.
    fn next(&self, there: u32) -> Option<u32> {
        self.places.iter().copied().find(|&place| place > there)
    }

    /// The last branch point that is not before `there` and not after `end`.
    pub(super) fn last(&self, there: u32, end: u32) -> Option<u32> {
        let mut places = self.places.iter().rev().copied();
        places.find(|place| (there..=end).contains(place))
    }

    /// Records that the first `there` tokens are computed, and drops the branch points up to there. Returns whether
    /// `there` was one.
    fn pass(&mut self, there: u32) -> bool {
        let is_one = self.places.contains(&there);
        self.places.retain(|&place| place > there);
        if is_one {
            self.shared = there;
        }
        is_one
    }
}

impl Scheduler {
    /// Lets running sequences pause where a new sequence branches off them, if they aren't computed beyond that point.
    pub(super) fn mark_running(&mut self, new: &Sequence) {
        if self.capacity.forks == Forks::Anywhere || new.cache_salt.is_none() {
            return;
        }
        for (id, running) in self.running.values_mut() {
            if running.cache_salt == new.cache_salt {
                let common = running.tokens.common(&new.tokens).min(new.known() - 1);
                running.marks.add(common, self.kv.length(*id));
            }
        }
    }

    /// Sets the branch points of a choice that was just admitted: where it diverges from other sequences. It has its
    /// first `shared` tokens in common with others.
    pub(super) fn mark(&mut self, choice: ChoiceId, shared: u32) {
        if self.capacity.forks == Forks::Anywhere {
            return;
        }
        let (id, sequence) = &self.running[&choice];
        let there = self.kv.length(*id);
        let mut marks = BranchPoints::new(shared);
        let last = sequence.known() - 1;
        for (other, end) in self.alike(choice, sequence) {
            let common = sequence.tokens.common(other);
            marks.add(common.min(end).min(last), there);
            // The prompt continues differently from what was generated there, or is the same again; so will the next
            // one, probably.
            if common >= other.prompt_length() {
                marks.add(sequence.prompt_length() - 1, there);
            }
        }
        let (_, sequence) = self.running.get_mut(&choice).expect("it has begun");
        sequence.marks = marks;
    }

    /// The tokens of other sequences with the same salt, and how many tokens each of these could reuse at most.
    fn alike<'a>(
        &'a self,
        choice: ChoiceId,
        sequence: &'a Sequence,
    ) -> impl Iterator<Item = (&'a Tokens, u32)> {
        let cache_salt = sequence.cache_salt.as_ref();
        let siblings = choice.siblings(sequence);
        let is_alike = move |other: &ChoiceId, it: &Sequence| {
            cache_salt.is_some()
                && it.cache_salt.as_ref() == cache_salt
                && !siblings.contains(other)
        };
        let also = is_alike.clone();
        let waiting = self.waiting.iter().filter(move |(other, it)| {
            let is_first = other.siblings(it).start() == *other;
            is_first && is_alike(other, it)
        });
        let waiting = waiting
            .take(WAITING_SEEN)
            .map(|(_, it)| (&it.tokens, it.known() - 1));
        let running = self.running.iter();
        let running = running.filter(move |(other, (_, it))| also(other, it));
        let running = running.map(|(_, (_, it))| &it.tokens);
        let known = running.chain(self.kept.known(cache_salt));
        waiting.chain(known.map(|tokens| (tokens, u32::MAX)))
    }

    /// The next position after `there` at which the choice's computation pauses.
    pub(super) fn pause(&self, choice: ChoiceId, there: u32) -> Option<u32> {
        if self.capacity.forks == Forks::Anywhere {
            return self.last_apart(choice).filter(|&place| place > there);
        }
        let sequence = &self.running[&choice].1;
        let siblings = self.siblings_leave(choice, sequence);
        let siblings = siblings.filter(|&place| place > there);
        siblings.into_iter().chain(sequence.marks.next(there)).min()
    }

    /// Where waiting choices of the same prompt will branch off: before its last token, which each computes for its
    /// logits.
    fn siblings_leave(&self, choice: ChoiceId, sequence: &Sequence) -> Option<u32> {
        let mut waiting = self.waiting.range(choice.siblings(sequence));
        waiting.next().map(|_| sequence.prompt_length() - 1)
    }

    /// Keeps a snapshot of the choice, before more of it is computed, if other choices branch off here. If there is no
    /// sequence for it, they compute these tokens again.
    pub(super) fn snapshot(&mut self, choice: ChoiceId) {
        if self.capacity.forks == Forks::Anywhere {
            return;
        }
        let (id, sequence) = self.running.get_mut(&choice).expect("it runs");
        let (id, there) = (*id, self.kv.length(*id));
        let is_marked = sequence.marks.pass(there);
        let sequence = &self.running[&choice].1;
        let for_siblings = there > 0 && self.siblings_leave(choice, sequence) == Some(there);
        if !is_marked && !for_siblings {
            return;
        }
        let cache_salt = sequence.cache_salt.clone();
        let scope = CacheScope {
            cache_salt: cache_salt.filter(|_| there >= SHARED_MIN),
            siblings: for_siblings.then(|| *choice.siblings(sequence).start()),
        };
        let (tokens, account) = (sequence.tokens.clone(), Arc::clone(&sequence.account));
        if self.is_kept_already(id, &tokens, &scope) {
            return;
        }
        if let Some(to) = self.fork(id, there, &account) {
            self.kv.rest(to);
            self.kept.keep(to, tokens, scope, Origin::Snapshot);
        }
    }

    /// Whether a waiting choice will reuse the kept sequence.
    pub(super) fn is_awaited(&self, id: SequenceId) -> bool {
        self.awaiting(id) > 0
    }

    /// Whether a waiting choice of the account will reuse the kept sequence.
    pub(super) fn is_awaited_by(&self, id: SequenceId, account: &str) -> bool {
        let of_account = |sequence: &Sequence| *sequence.account == *account;
        self.awaiting_of(id, of_account) > 0
    }

    /// The number of waiting choices that can reuse the kept sequence, counted up to two.
    pub(super) fn awaiting(&self, id: SequenceId) -> usize {
        self.awaiting_of(id, |_| true)
    }

    fn awaiting_of(&self, id: SequenceId, counts: impl Fn(&Sequence) -> bool) -> usize {
        let Some((tokens, scope)) = self.kept.entry(id) else {
            return 0;
        };
        if self.capacity.forks == Forks::Anywhere {
            return 0;
        }
        let length = self.kv.length(id);
        let waiting = self.waiting.iter().take(WAITING_SEEN);
        let can_begin = waiting.filter(|(choice, it)| {
            counts(it)
                && scope.include(**choice, it)
                && length < it.known()
                && it.tokens.at(length - 1) == tokens.at(length - 1)
                && it.tokens.common(tokens) >= length
        });
        can_begin.take(2).count()
    }

    /// Whether a sequence may stay a snapshot that others wait for, instead of being computed in: a choice runs, whose
    /// end will free a sequence, and at most half of all sequences are kept ones.
    pub(super) fn may_hold_on(&self) -> bool {
        !self.running.is_empty() && self.kept.len() <= self.capacity.sequences as usize / 2
    }

    /// Evicts what is kept only for the choices of one prompt once none of them waits any more.
    pub(super) fn release(&mut self, choice: ChoiceId, sequence: &Sequence) {
        let siblings = choice.siblings(sequence);
        let first = *siblings.start();
        if self.waiting.range(siblings).next().is_none() {
            let useless = self.kept.release(first);
            useless.into_iter().for_each(|id| self.let_go(id));
        }
    }
}

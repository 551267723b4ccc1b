//! Sharing where a sequence can only be left at its end ([`Forks::AtEnd`]): its computation pauses where others
//! leave it, and what it is there is kept as a sequence of its own, which all of them begin with.
//!
//! Where others leave it is known from those that wait, run, are kept or were let go: states are kept where prompts branch, as
//! in Marconi (Pan et al., Prefix Caching for the Era of Hybrid LLMs, MLSys 2025), and where conversations end, but
//! not all along the way.

use std::sync::Arc;

use crate::model::{Forks, SequenceId};
use crate::scheduler::prefix::{Origin, SHARED_MIN, Sharers};
use crate::scheduler::sequence::{Sequence, Tokens};
use crate::scheduler::{ChoiceId, Scheduler};

/// Of a sequence, beside the end of its prompt.
const MARKS_MAX: usize = 8;
/// So many of those that wait are compared with one that begins.
const WAITING_SEEN: usize = 64;

/// Where the computation of a sequence pauses.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Ascending, and no two near each other.
    places: Vec<u32>,
    /// Up to here others have what it has already.
    shared: u32,
}

impl Marks {
    fn new(shared: u32) -> Self {
        Marks {
            places: Vec::new(),
            shared,
        }
    }

    /// `there` is computed already.
    fn add(&mut self, place: u32, there: u32) {
        if place < there || place < self.shared + SHARED_MIN {
            return;
        }
        let near = |other: &&mut u32| other.abs_diff(place) < SHARED_MIN;
        if let Some(near) = self.places.iter_mut().find(near) {
            // The first of them serves both.
            *near = place.min(*near);
        } else if self.places.len() < MARKS_MAX {
            let at = self.places.partition_point(|&other| other < place);
            self.places.insert(at, place);
        }
    }

    /// The first one behind `there`.
    fn next(&self, there: u32) -> Option<u32> {
        self.places.iter().copied().find(|&place| place > there)
    }

    /// The last one that is not before `there`, and not behind `end`.
    pub(super) fn last(&self, there: u32, end: u32) -> Option<u32> {
        let mut places = self.places.iter().rev().copied();
        places.find(|place| (there..=end).contains(place))
    }

    /// All up to `there` is computed; whether it is a mark.
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
    /// Those that run pause where a new sequence leaves them, if they haven't come beyond that.
    pub(super) fn mark_running(&mut self, new: &Sequence) {
        if self.capacity.forks == Forks::Anywhere || new.salt.is_none() {
            return;
        }
        for (id, running) in self.running.values_mut() {
            if running.salt == new.salt {
                let common = running.tokens.common(&new.tokens).min(new.known() - 1);
                running.marks.add(common, self.kv.length(*id));
            }
        }
    }

    /// A sequence has begun, with `shared` tokens that others have as well: it pauses where it parts from others.
    pub(super) fn mark(&mut self, choice: ChoiceId, shared: u32) {
        if self.capacity.forks == Forks::Anywhere {
            return;
        }
        let (id, sequence) = &self.running[&choice];
        let there = self.kv.length(*id);
        let mut marks = Marks::new(shared);
        let last = sequence.known() - 1;
        for (other, end) in self.alike(choice, sequence) {
            let common = sequence.tokens.common(other);
            marks.add(common.min(end).min(last), there);
            // It says something else than what was generated there, or asks the same again: so will the next one.
            if common >= other.prompt_length() {
                marks.add(sequence.prompt_length() - 1, there);
            }
        }
        let (_, sequence) = self.running.get_mut(&choice).expect("it has begun");
        sequence.marks = marks;
    }

    /// Tokens of others with the same salt, and how many of them are of use to these others at most.
    fn alike<'a>(
        &'a self,
        choice: ChoiceId,
        sequence: &'a Sequence,
    ) -> impl Iterator<Item = (&'a Tokens, u32)> {
        let salt = sequence.salt.as_ref();
        let siblings = choice.siblings(sequence);
        let is_alike = move |other: &ChoiceId, it: &Sequence| {
            salt.is_some() && it.salt.as_ref() == salt && !siblings.contains(other)
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
        let known = running.chain(self.kept.known(salt));
        waiting.chain(known.map(|tokens| (tokens, u32::MAX)))
    }

    /// The next place behind `there` where the choice pauses.
    pub(super) fn pause(&self, choice: ChoiceId, there: u32) -> Option<u32> {
        if self.capacity.forks == Forks::Anywhere {
            return self.last_apart(choice).filter(|&place| place > there);
        }
        let sequence = &self.running[&choice].1;
        let siblings = self.siblings_leave(choice, sequence);
        let siblings = siblings.filter(|&place| place > there);
        siblings.into_iter().chain(sequence.marks.next(there)).min()
    }

    /// Where choices of the same prompt that wait will leave it: before the last token, which each computes for its logits.
    fn siblings_leave(&self, choice: ChoiceId, sequence: &Sequence) -> Option<u32> {
        let mut waiting = self.waiting.range(choice.siblings(sequence));
        waiting.next().map(|_| sequence.prompt_length() - 1)
    }

    /// Before more of the choice is computed: what it has is kept, if others leave it here. There may be no sequence for
    /// that; then they compute it again.
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
        let salt = sequence.salt.clone();
        let sharers = Sharers {
            salt: salt.filter(|_| there >= SHARED_MIN),
            siblings: for_siblings.then(|| *choice.siblings(sequence).start()),
        };
        let (tokens, account) = (sequence.tokens.clone(), Arc::clone(&sequence.account));
        if self.is_kept_already(id, &tokens, &sharers) {
            return;
        }
        if let Some(to) = self.fork(id, there, &account) {
            self.kv.rest(to);
            self.kept.keep(to, tokens, sharers, Origin::Snapshot);
        }
    }

    /// Whether somebody who waits will begin with what is kept in the sequence.
    pub(super) fn is_awaited(&self, id: SequenceId) -> bool {
        self.awaiting(id) > 0
    }

    /// Whether a request of the account is among them.
    pub(super) fn is_awaited_by(&self, id: SequenceId, account: &str) -> bool {
        let of_account = |sequence: &Sequence| *sequence.account == *account;
        self.awaiting_of(id, of_account) > 0
    }

    /// How many of those that wait can begin with what is kept in the sequence; of many, two.
    pub(super) fn awaiting(&self, id: SequenceId) -> usize {
        self.awaiting_of(id, |_| true)
    }

    fn awaiting_of(&self, id: SequenceId, counts: impl Fn(&Sequence) -> bool) -> usize {
        let Some((tokens, sharers)) = self.kept.entry(id) else {
            return 0;
        };
        if self.capacity.forks == Forks::Anywhere {
            return 0;
        }
        let length = self.kv.length(id);
        let waiting = self.waiting.iter().take(WAITING_SEEN);
        let can_begin = waiting.filter(|(choice, it)| {
            counts(it)
                && sharers.include(**choice, it)
                && length < it.known()
                && it.tokens.at(length - 1) == tokens.at(length - 1)
                && it.tokens.common(tokens) >= length
        });
        can_begin.take(2).count()
    }

    /// Whether a sequence may keep what others wait for rather than be computed in: somebody runs, who will end, and half
    /// of all sequences can run.
    pub(super) fn may_hold_on(&self) -> bool {
        !self.running.is_empty() && self.kept.len() <= self.capacity.sequences as usize / 2
    }

    /// What is kept for choices of one prompt goes when none of them waits any more.
    pub(super) fn release(&mut self, choice: ChoiceId, sequence: &Sequence) {
        let siblings = choice.siblings(sequence);
        let first = *siblings.start();
        if self.waiting.range(siblings).next().is_none() {
            let useless = self.kept.release(first);
            useless.into_iter().for_each(|id| self.let_go(id));
        }
    }
}

//! Admission from the queue: of the account whose turn it is, the oldest choice that is ready, as soon as its tokens
//! and some of its answer fit the cache beside the running choices. It is overtaken only if another choice is computing
//! the same prefix, or if it would only wait for the background prefill under way.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::model::SequenceId;
use crate::scheduler::plan::StepBuilder;
use crate::scheduler::prefix::PrefixMatch;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::{ChoiceId, Scheduler};

/// The cached prefix of a waiting choice, if any: the sequence that has it, and its number of tokens.
pub(super) type Beginning = Option<(SequenceId, u32)>;

/// How many of the free KV cells admission may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserve {
    /// The cells that the running choices and the new one are expected to need stay free.
    Kept,
    /// All of them: nothing but the new choice can be computed.
    Spent,
}

impl Scheduler {
    /// Admits the next choice, if it fits.
    pub(super) fn begin_next(
        &mut self,
        builder: &StepBuilder<'_>,
        reserve: Reserve,
    ) -> Option<ChoiceId> {
        let (choice, source) = self.next_to_begin(builder)?;
        self.begin(choice, source, reserve)
    }

    pub(super) fn begin(
        &mut self,
        choice: ChoiceId,
        source: Beginning,
        reserve: Reserve,
    ) -> Option<ChoiceId> {
        if !self.fits(choice, source, reserve) {
            return None;
        }
        let account = Arc::clone(&self.waiting[&choice].account);
        let repeats = source.is_some() && source == self.left_before(choice);
        let was_kept = source.is_some_and(|(from, _)| self.kept.is_shared(from));
        let (id, length) = match source {
            Some((from, length)) => (self.take(from, length, &account, repeats)?, length),
            None => (self.open(&account)?, 0),
        };
        // A sequence that the choice takes over isn't shared with others any more.
        let shared = source.map_or(0, |(from, length)| if id == from { 0 } else { length });
        let sequence = self.waiting.remove(&choice).expect("it waited");
        self.kept.learn(&sequence, length, was_kept);
        let first = *choice.siblings(&sequence).start();
        let prompt = self.prompts.get_mut(&first).expect("its request is known");
        prompt.cached.get_or_insert(length);
        self.accounts.begin(&sequence.account);
        self.release(choice, &sequence);
        self.running.insert(choice, (id, sequence));
        self.mark(choice, shared);
        if !repeats && self.repeatable_runs_alone() {
            self.make_room_at_once(choice);
        }
        self.begun.insert(choice.request, true);
        Some(choice)
    }

    pub(super) fn next_to_begin(&self, builder: &StepBuilder<'_>) -> Option<(ChoiceId, Beginning)> {
        let mut accounts = self.in_turn(builder.rows_max()).into_iter();
        accounts.find_map(|account| self.next_of(&account, builder))
    }

    /// The account's oldest choice that can be computed now, with its cached prefix.
    pub(super) fn next_of(
        &self,
        account: &str,
        builder: &StepBuilder<'_>,
    ) -> Option<(ChoiceId, Beginning)> {
        let choices = self.accounts.choices(account);
        let mut next = choices.first().copied();
        while let Some(choice) = next {
            let mut skipped = choice;
            if builder.is_blocked(choice.request) {
                skipped = *choice.request.all().end();
            } else if let Some(sequence) = self.waiting.get(&choice) {
                let beginning = match self.source(builder, choice) {
                    PrefixMatch::Computing => None,
                    PrefixMatch::Ready { from, length } => Some(Some((from, length))),
                    PrefixMatch::Nowhere => Some(None),
                };
                let length = beginning.flatten().map_or(0, |(_, length)| length);
                match beginning {
                    None => skipped = *choice.siblings(sequence).end(),
                    // It would hold a sequence and cells while none of it is computed.
                    Some(_) if self.would_wait(choice, length) => {}
                    Some(beginning) => return Some((choice, beginning)),
                }
            }
            next = choices
                .range((Excluded(skipped), Unbounded))
                .next()
                .copied();
        }
        None
    }

    /// Whether there is room for the choice, so that it isn't in the way of the running ones.
    pub(super) fn may_begin(&self, choice: ChoiceId, source: Beginning) -> bool {
        self.kv.free_sequences() + self.kept() > 0 && self.fits(choice, source, Reserve::Kept)
    }

    pub(super) fn oldest_ready(&self, builder: &StepBuilder<'_>) -> Option<ChoiceId> {
        let mut waiting = self.waiting.keys().copied();
        waiting.find(|choice| !builder.is_blocked(choice.request))
    }

    /// Whether the cells that the choice needs are free and, with [`Reserve::Kept`], those that it and the running
    /// choices are expected to need.
    fn fits(&self, choice: ChoiceId, source: Beginning, reserve: Reserve) -> bool {
        let sequence = &self.waiting[&choice];
        // Idle cells that the choice reuses can't be evicted for it.
        let cells = source.map_or(sequence.known(), |(from, length)| {
            sequence.known() - length + self.kv.idle_prefix(from, length)
        });
        // Cells that are reserved for background prefill are also part of `promised`.
        let free = self.kv.free_cells() + self.kv.reserved_cells() + self.kv.idle_cells();
        if reserve == Reserve::Spent {
            return cells <= free - self.kv.reserved_cells();
        }
        let expected = |sequence: &Sequence| sequence.remaining().min(self.output_expected);
        let running = self.running.values().map(|(id, running)| {
            u64::from(running.known() - self.kv.length(*id)) + u64::from(expected(running))
        });
        let promised: u64 = running.sum();
        promised + u64::from(cells) + u64::from(expected(sequence)) <= u64::from(free)
    }
}

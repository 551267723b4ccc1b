//! Who comes in from the queue: the oldest that is ready, as soon as its tokens and some of its answer
//! fit the cache beside those that run. Nobody overtakes it.

use crate::model::SequenceId;
use crate::scheduler::plan::Draft;
use crate::scheduler::sequence::Trunk;
use crate::scheduler::{Admission, ChoiceId, Holder, Scheduler};

/// Where the beginning of a choice is in the cache already.
enum Source {
    /// These tokens of this sequence are the choice's.
    Ready {
        from: SequenceId,
        length: u32,
    },
    /// Somebody is computing it; whoever waits for that saves doing it again.
    Computing,
    Nowhere,
}

/// How much of the cache may be given away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserve {
    /// What those that run and the new one are expected to need stays free.
    Kept,
    /// The new one is all that can be computed at all.
    Spent,
}

impl Scheduler {
    pub(super) fn admit(&mut self, draft: &mut Draft<'_>) {
        while self.admission == Admission::Open && draft.prompt_room > 0 {
            let Some(holder) = self.begin_oldest(draft, Reserve::Kept) else {
                return;
            };
            self.place_prompt(draft, holder);
        }
    }

    /// Admits one, if it fits at all: for a step that would be empty otherwise.
    pub(super) fn admit_tightly(&mut self, draft: &Draft<'_>) -> bool {
        self.begin_oldest(draft, Reserve::Spent).is_some()
    }

    pub(super) fn begin_oldest(&mut self, draft: &Draft<'_>, reserve: Reserve) -> Option<Holder> {
        let choice = self.oldest_ready(draft)?;
        let holder = match self.source(choice) {
            Source::Computing => return None,
            Source::Ready { from, length } => self.begin_from(choice, from, length, reserve)?,
            Source::Nowhere => self.begin_anew(choice, reserve)?,
        };
        self.begun.insert(choice.request, true);
        Some(holder)
    }

    pub(super) fn oldest_ready(&self, draft: &Draft<'_>) -> Option<ChoiceId> {
        let mut next = self.waiting.keys().next().copied();
        while let Some(choice) = next
            && draft.is_blocked(choice.request)
        {
            // All of that request is blocked.
            let after = *choice.request.all().end();
            next = self
                .waiting
                .range(after..)
                .map(|(&choice, _)| choice)
                .find(|&choice| choice > after);
        }
        next
    }

    fn source(&self, choice: ChoiceId) -> Source {
        let sequence = &self.waiting[&choice];
        let siblings = choice.siblings(sequence);
        let trunk = self.trunks.get(siblings.start()).map(|trunk| trunk.id);
        let mut live = trunk
            .into_iter()
            .chain(self.running.range(siblings).map(|(_, (id, _))| *id))
            .peekable();
        if live.peek().is_none() {
            return Source::Nowhere;
        }
        // The last token that is known is always computed, for its logits.
        let shared = |id| {
            self.kv
                .length(id)
                .min(sequence.prompt_length())
                .min(sequence.known() - 1)
        };
        match live.find(|&id| shared(id) + 1 >= sequence.prompt_length()) {
            Some(from) => Source::Ready {
                from,
                length: shared(from),
            },
            None => Source::Computing,
        }
    }

    /// Goes on from a sequence that begins with the same tokens: in one of its own, or, if nobody else
    /// waits for the trunk, in the trunk's.
    fn begin_from(
        &mut self,
        choice: ChoiceId,
        from: SequenceId,
        length: u32,
        reserve: Reserve,
    ) -> Option<Holder> {
        let sequence = &self.waiting[&choice];
        if !self.fits(sequence.known() - length, sequence.remaining(), reserve) {
            return None;
        }
        let siblings = choice.siblings(sequence);
        let first = *siblings.start();
        let is_last = self.waiting.range(siblings).nth(1).is_none();
        let is_trunk = self
            .trunks
            .get(&first)
            .is_some_and(|trunk| trunk.id == from);
        let forked = if is_last && is_trunk {
            None
        } else {
            self.kv.fork(from, length)
        };
        let id = match forked {
            Some(id) => id,
            None if is_trunk && (is_last || reserve == Reserve::Spent) => {
                self.trunks.remove(&first);
                from
            }
            None => return None,
        };
        Some(self.run(choice, id))
    }

    /// Starts with an empty sequence: a trunk if several wait for the same prompt.
    fn begin_anew(&mut self, choice: ChoiceId, reserve: Reserve) -> Option<Holder> {
        let sequence = &self.waiting[&choice];
        if !self.fits(sequence.known(), sequence.remaining(), reserve) {
            return None;
        }
        let id = self.kv.open()?;
        let siblings = choice.siblings(sequence);
        let is_last = self.waiting.range(siblings.clone()).nth(1).is_none();
        if is_last || sequence.prompt_length() == 1 {
            return Some(self.run(choice, id));
        }
        let trunk = Trunk::new(id, sequence);
        self.trunks.insert(*siblings.start(), trunk);
        Some(Holder::Trunk(*siblings.start()))
    }

    fn run(&mut self, choice: ChoiceId, id: SequenceId) -> Holder {
        let sequence = self.waiting.remove(&choice).expect("it waited");
        self.running.insert(choice, (id, sequence));
        Holder::Choice(choice)
    }

    /// Whether a choice with so many tokens to compute and to generate can come in.
    fn fits(&self, tokens: u32, remaining: u32, reserve: Reserve) -> bool {
        if reserve == Reserve::Spent {
            return tokens <= self.kv.free_cells();
        }
        let expected = |remaining: u32| u64::from(remaining.min(self.output_expected));
        let running = self.running.values().map(|(id, sequence)| {
            u64::from(sequence.known() - self.kv.length(*id)) + expected(sequence.remaining())
        });
        let trunks = self
            .trunks
            .values()
            .map(|trunk| u64::from(trunk.length() - self.kv.length(trunk.id)));
        let promised: u64 = running.chain(trunks).sum();
        promised + u64::from(tokens) + expected(remaining) <= u64::from(self.kv.free_cells())
    }
}

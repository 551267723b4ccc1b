//! The prefix cache: what was computed for one is taken by whoever begins with the same tokens, from a
//! sequence that still runs or from one that is kept after its end. Both must have the same salt.
//!
//! What is kept goes when its cells or its sequence are needed, the longest unused first, from its end; and when
//! it has cost as much as computing it again would, or far earlier where nothing is ever used again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Batching, SequenceId};
use crate::scheduler::plan::Draft;
use crate::scheduler::sequence::{Sequence, Tokens};
use crate::scheduler::{ChoiceId, Scheduler};

/// Fewer common tokens aren't worth a fork: any two prompts of one template have some.
const SHARED_MIN: u32 = 16;

/// How many rows of streams a sequence is kept for without being used, at most. Each of their attentions passes over
/// its cells, which takes 1/5,000 of the time to compute them: by then, keeping it has cost as much as it would save.
const PATIENCE_MAX: u64 = 5_000;
/// Before anything was learnt.
const PATIENCE_START: u64 = 512;
/// Where nothing is ever used again.
const PATIENCE_MIN: u64 = 128;
/// What was let go, and would have been of use, is remembered for so many.
const MISSED_MAX: usize = 64;

/// Where the beginning of a choice is in the cache already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// These tokens of this sequence are the choice's.
    Ready {
        from: SequenceId,
        length: u32,
    },
    /// Somebody is computing it; whoever waits for that saves doing it again.
    Computing,
    Nowhere,
}

/// What is kept after its end.
#[derive(Debug)]
pub(super) struct Kept {
    entries: BTreeMap<SequenceId, Entry>,
    uses: u64,
    /// Rows of streams computed until now.
    rows: u64,
    /// Rows of streams that may pass between two uses: more when something is used, or would have been if it were
    /// still there, and fewer when something isn't.
    patience: u64,
    /// The last that were let go for that, the oldest first. They have no cells.
    missed: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// At least as many as are in the cache.
    tokens: Tokens,
    salt: Arc<str>,
    /// The number of its last use.
    used: u64,
    /// Rows of streams at that time.
    rows: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            entries: BTreeMap::new(),
            uses: 0,
            rows: 0,
            patience: PATIENCE_START,
            missed: VecDeque::new(),
        }
    }
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn oldest(&self, except: Option<SequenceId>) -> Option<SequenceId> {
        let all = self.entries.iter().filter(|(id, _)| Some(**id) != except);
        all.min_by_key(|(_, entry)| entry.used).map(|(&id, _)| id)
    }

    fn touch(&mut self, id: SequenceId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.uses += 1;
            (entry.used, entry.rows) = (self.uses, self.rows);
        }
    }

    pub(super) fn has(&self, id: SequenceId) -> bool {
        self.entries.contains_key(&id)
    }

    /// A sequence begins with `length` tokens of one that was kept, or not.
    pub(super) fn learn(&mut self, sequence: &Sequence, length: u32, was_kept: bool) {
        if was_kept || self.misses(sequence, length) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
    }

    fn was_of_no_use(&mut self, entry: Entry) {
        self.patience = (self.patience - self.patience / 8).max(PATIENCE_MIN);
        self.missed.push_back(entry);
        if self.missed.len() > MISSED_MAX {
            self.missed.pop_front();
        }
    }

    /// Whether more of a new sequence than `length` tokens would be there, had it been kept for longer.
    fn misses(&mut self, sequence: &Sequence, length: u32) -> bool {
        let oldest = self.rows.saturating_sub(PATIENCE_MAX);
        self.missed.retain(|entry| entry.rows >= oldest);
        let missed = self.missed.iter().position(|entry| {
            sequence.salt.as_ref() == Some(&entry.salt)
                && sequence.tokens.common(&entry.tokens) >= length + SHARED_MIN
        });
        missed
            .and_then(|missed| self.missed.remove(missed))
            .is_some()
    }
}

impl Scheduler {
    /// Nobody computes the sequence any more. It is kept if somebody may begin like it.
    pub(super) fn retire(&mut self, id: SequenceId, sequence: &Sequence) {
        let salt = sequence.salt.clone();
        let Some(salt) = salt.filter(|_| self.kv.length(id) >= SHARED_MIN) else {
            return self.kv.forget(id);
        };
        if let Some(same) = self.kept_covering(id, &sequence.tokens, &salt) {
            self.kept.touch(same);
            return self.kv.forget(id);
        }
        self.kv.rest(id);
        let entry = Entry {
            tokens: sequence.tokens.clone(),
            salt,
            used: 0,
            rows: 0,
        };
        self.kept.entries.insert(id, entry);
        self.kept.touch(id);
    }

    /// What is kept already and begins with all that the sequence has.
    fn kept_covering(
        &self,
        id: SequenceId,
        tokens: &Tokens,
        salt: &Arc<str>,
    ) -> Option<SequenceId> {
        let length = self.kv.length(id);
        let mut kept = self.kept.entries.iter();
        let covers = kept.find(|(other, entry)| {
            entry.salt == *salt
                && self.kv.length(**other) >= length
                && entry.tokens.at(length - 1) == tokens.at(length - 1)
                && entry.tokens.common(tokens) >= length
        });
        covers.map(|(&other, _)| other)
    }

    /// Frees so many cells, if those that are kept have them.
    pub(super) fn make_room(&mut self, cells: u32) -> bool {
        while self.kv.free_cells() < cells {
            let Some(id) = self.kept.oldest(None) else {
                return false;
            };
            let (length, own) = (self.kv.length(id), self.kv.own_cells(id));
            let missing = (cells - self.kv.free_cells()).max(SHARED_MIN);
            if missing < own && length - missing >= SHARED_MIN {
                self.kv.truncate(id, length - missing);
            } else {
                self.let_go(id);
            }
        }
        true
    }

    /// Lets go of what has been kept for too long.
    pub(super) fn age_kept(&mut self, rows: u32) {
        self.kept.rows += u64::from(rows);
        while let Some(id) = self.kept.oldest(None)
            && self.kept.rows - self.kept.entries[&id].rows > self.kept.patience
        {
            if let Some(entry) = self.kept.entries.remove(&id) {
                self.kept.was_of_no_use(entry);
            }
            self.kv.forget(id);
        }
    }

    /// Lets go of all that is kept; whether there was something.
    pub fn forget_kept(&mut self) -> bool {
        let ids: Vec<_> = self.kept.entries.keys().copied().collect();
        ids.iter().for_each(|&id| self.let_go(id));
        !ids.is_empty()
    }

    fn let_go(&mut self, id: SequenceId) {
        self.kept.entries.remove(&id);
        self.kv.forget(id);
    }

    /// A sequence that has the first `length` tokens of `from`: a kept one that has no more, else a fork.
    pub(super) fn take(&mut self, from: SequenceId, length: u32) -> Option<SequenceId> {
        self.kept.touch(from);
        let is_kept = self.kept.has(from);
        if is_kept && self.kv.length(from) == length {
            return Some(self.take_over(from));
        }
        if let Some(to) = self.fork(from, length) {
            return Some(to);
        }
        is_kept.then(|| {
            self.kv.truncate(from, length);
            self.take_over(from)
        })
    }

    fn take_over(&mut self, id: SequenceId) -> SequenceId {
        self.kept.entries.remove(&id);
        self.kv.wake(id);
        id
    }

    fn fork(&mut self, from: SequenceId, length: u32) -> Option<SequenceId> {
        if self.kv.free_sequences() == 0 {
            let oldest = self.kept.oldest(Some(from))?;
            self.let_go(oldest);
        }
        self.kv.fork(from, length)
    }

    /// An empty sequence.
    pub(super) fn open(&mut self) -> Option<SequenceId> {
        if self.kv.free_sequences() == 0 {
            let oldest = self.kept.oldest(None)?;
            self.let_go(oldest);
        }
        self.kv.open()
    }

    /// The longest beginning that is there, unless a longer one is coming.
    pub(super) fn source(&self, draft: &Draft<'_>, choice: ChoiceId) -> Source {
        let sequence = &self.waiting[&choice];
        let siblings = choice.siblings(sequence);
        // The last token that is known is always computed, for its logits; so is what is to be scored.
        let unscored = &self.prompts[siblings.start()].unscored;
        let scored_from = (!unscored.is_empty()).then_some(unscored.start);
        let mut search = Search {
            of: &sequence.tokens,
            wanted: scored_from
                .map_or(u32::MAX, |from| from)
                .min(sequence.known() - 1),
            chunk: match self.capacity.batching {
                Batching::Together => None,
                Batching::OneSequence => Some(self.capacity.chunk()),
            },
            best: None,
            coming: 0,
        };
        for (&other, (id, running)) in &self.running {
            let there = self.kv.length(*id);
            if siblings.contains(&other) {
                if there + 1 < sequence.prompt_length() {
                    return Source::Computing;
                }
                search.see(*id, &running.tokens, there, 1);
            } else if sequence.salt.is_some() && sequence.salt == running.salt {
                let common = search.see(*id, &running.tokens, there, SHARED_MIN);
                if there < common && !draft.is_blocked(other.request) {
                    search.coming = search.coming.max(common);
                }
            }
        }
        for (&id, entry) in &self.kept.entries {
            if sequence.salt.as_ref() == Some(&entry.salt) {
                search.see(id, &entry.tokens, self.kv.length(id), SHARED_MIN);
            }
        }
        search.found()
    }
}

/// Who begins like a sequence.
struct Search<'a> {
    of: &'a Tokens,
    /// No more than so many tokens.
    wanted: u32,
    /// Where logits depend on how prompts are cut, the rows of a piece.
    chunk: Option<u32>,
    best: Option<(SequenceId, u32)>,
    /// What will be there soon.
    coming: u32,
}

impl Search<'_> {
    /// Looks at a sequence of which the first `there` tokens are computed; how many are of use when all are, or
    /// 0 if they are no more than those of the best until now.
    fn see(&mut self, id: SequenceId, tokens: &Tokens, there: u32, least: u32) -> u32 {
        let best = self.best.map_or(0, |(_, length)| length);
        if best >= self.wanted || tokens.at(best).is_none() || tokens.at(best) != self.of.at(best) {
            return 0;
        }
        let common = tokens.common(self.of).min(self.wanted);
        let length = self.reusable(tokens, common.min(there));
        if length >= least && length > best {
            self.best = Some((id, length));
        }
        self.reusable(tokens, common)
    }

    /// How many of the common tokens were computed as they would be again.
    fn reusable(&self, tokens: &Tokens, common: u32) -> u32 {
        let Some(chunk) = self.chunk else {
            return common;
        };
        if tokens.prompt == self.of.prompt {
            return common;
        }
        let shorter = tokens.prompt.len().min(self.of.prompt.len()) - 1;
        let chunked = common.min(u32::try_from(shorter).expect("no longer than the context"));
        chunked / chunk * chunk
    }

    fn found(self) -> Source {
        let length = self.best.map_or(0, |(_, length)| length);
        if self.coming >= length + SHARED_MIN {
            return Source::Computing;
        }
        match self.best {
            Some((from, length)) => Source::Ready { from, length },
            None => Source::Nowhere,
        }
    }
}

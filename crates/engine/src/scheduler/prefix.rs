//! The prefix cache: what was computed for one is taken by whoever begins with the same tokens, from a
//! sequence that still runs or from one that is kept after its end. Both must have the same salt.
//!
//! Where a sequence can only be left at its end, one is of use if all that it has is a beginning of the new one
//! ([`snapshots`](crate::scheduler::snapshots)).
//!
//! What is kept goes when its cells or its sequence are needed, the longest unused first, from its end; and when
//! it has cost as much as computing it again would, or far earlier where nothing is ever used again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Batching, Forks, SequenceId};
use crate::scheduler::plan::Draft;
use crate::scheduler::sequence::{Sequence, Tokens};
use crate::scheduler::{ChoiceId, Scheduler};

/// Fewer common tokens aren't worth a fork: any two prompts of one template have some.
pub(super) const SHARED_MIN: u32 = 16;

/// A sequence is kept without being used for [`Model::keep_rows`](crate::model::Model::keep_rows) at most: by then, keeping it has cost as
/// much as it would save. Before anything was learnt it is this part of that, …
const PATIENCE_START: u64 = 8;
/// … and where nothing is ever used again this.
const PATIENCE_MIN: u64 = 32;
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
    forks: Forks,
    entries: BTreeMap<SequenceId, Entry>,
    uses: u64,
    /// Rows of streams computed until now.
    rows: u64,
    /// Rows of streams that may pass between two uses: more when something is used, or would have been if it were
    /// still there, and fewer when something isn't.
    patience: u64,
    patience_max: u64,
    /// The last that were let go for that, the oldest first. They have no cells.
    missed: VecDeque<Missed>,
}

#[derive(Debug)]
struct Entry {
    /// At least as many as are in the cache.
    tokens: Tokens,
    sharers: Sharers,
    origin: Origin,
    /// The number of its last use.
    used: u64,
    /// Rows of streams at that time.
    rows: u64,
}

/// Who may begin with what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sharers {
    pub(super) salt: Option<Arc<str>>,
    /// Choices of the prompt whose first choice this is, of which one waits for it at least.
    pub(super) siblings: Option<ChoiceId>,
}

/// How it comes that a sequence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody computes it any more; whoever goes on from its end takes it.
    Ended,
    /// It was forked where several will go on, so it stays for the others.
    Snapshot,
}

#[derive(Debug)]
struct Missed {
    tokens: Tokens,
    salt: Arc<str>,
    /// Tokens that were in the cache.
    length: u32,
    /// As of the entry that it was.
    rows: u64,
}

impl Sharers {
    pub(super) fn include(&self, choice: ChoiceId, sequence: &Sequence) -> bool {
        self.siblings.as_ref() == Some(choice.siblings(sequence).start())
            || (self.salt.is_some() && self.salt == sequence.salt)
    }
}

impl Kept {
    pub(super) fn new(forks: Forks, keep_rows: Option<u32>) -> Self {
        let patience_max = keep_rows.map_or(u64::MAX, u64::from);
        Kept {
            forks,
            entries: BTreeMap::new(),
            uses: 0,
            rows: 0,
            patience: patience_max / PATIENCE_START,
            patience_max,
            missed: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn touch(&mut self, id: SequenceId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.uses += 1;
            (entry.used, entry.rows) = (self.uses, self.rows);
        }
    }

    /// What a sequence with the same prompt and the same salt has left. Without a salt nothing is anybody else's.
    pub(super) fn of_prompt(&self, sequence: &Sequence) -> Option<SequenceId> {
        let is_same = |entry: &Entry| {
            entry.sharers.salt.is_some()
                && entry.sharers.salt == sequence.salt
                && entry.tokens.prompt == sequence.tokens.prompt
        };
        let mut entries = self.entries.iter();
        entries.find(|(_, entry)| is_same(entry)).map(|(&id, _)| id)
    }

    pub(super) fn entry(&self, id: SequenceId) -> Option<(&Tokens, &Sharers)> {
        let entry = self.entries.get(&id)?;
        Some((&entry.tokens, &entry.sharers))
    }

    fn has(&self, id: SequenceId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn is_shared(&self, id: SequenceId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.sharers.salt.is_some())
    }

    fn is_snapshot(&self, id: SequenceId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.origin == Origin::Snapshot)
    }

    /// No choice of the prompt waits any more; what is of no use to anybody else then.
    pub(super) fn release(&mut self, first: ChoiceId) -> Vec<SequenceId> {
        let mut useless = Vec::new();
        for (&id, entry) in &mut self.entries {
            let sharers = &mut entry.sharers;
            if sharers.siblings.take_if(|it| *it == first).is_some() && sharers.salt.is_none() {
                useless.push(id);
            }
        }
        useless
    }

    /// Tokens of all that is kept for a salt, and of what was lately. Without one nothing is anybody else's.
    pub(super) fn known(&self, salt: Option<&Arc<str>>) -> impl Iterator<Item = &Tokens> {
        let kept = self
            .entries
            .values()
            .filter(move |entry| salt.is_some() && entry.sharers.salt.as_ref() == salt);
        let missed = self
            .missed
            .iter()
            .filter(move |missed| Some(&missed.salt) == salt);
        kept.map(|entry| &entry.tokens)
            .chain(missed.map(|missed| &missed.tokens))
    }

    pub(super) fn keep(
        &mut self,
        id: SequenceId,
        tokens: Tokens,
        sharers: Sharers,
        origin: Origin,
    ) {
        let entry = Entry {
            tokens,
            sharers,
            origin,
            used: 0,
            rows: 0,
        };
        self.entries.insert(id, entry);
        self.touch(id);
    }

    /// A sequence begins with `length` tokens of one that was kept, or not.
    pub(super) fn learn(&mut self, sequence: &Sequence, length: u32, was_kept: bool) {
        if was_kept || self.misses(sequence, length) {
            self.patience = self.patience.saturating_mul(2).min(self.patience_max);
        }
    }

    fn was_of_no_use(&mut self, entry: Entry, length: u32) {
        self.patience = (self.patience - self.patience / 8).max(self.patience_max / PATIENCE_MIN);
        let Some(salt) = entry.sharers.salt else {
            return;
        };
        self.missed.push_back(Missed {
            tokens: entry.tokens,
            salt,
            length,
            rows: entry.rows,
        });
        if self.missed.len() > MISSED_MAX {
            self.missed.pop_front();
        }
    }

    /// Whether more of a new sequence than `length` tokens would be there, had it been kept for longer.
    fn misses(&mut self, sequence: &Sequence, length: u32) -> bool {
        let oldest = self.rows.saturating_sub(self.patience_max);
        self.missed.retain(|entry| entry.rows >= oldest);
        let forks = self.forks;
        let missed = self.missed.iter().position(|missed| {
            sequence.salt.as_ref() == Some(&missed.salt) && {
                let common = sequence.tokens.common(&missed.tokens);
                reusable(forks, common, missed.length) >= length + SHARED_MIN
            }
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
        let least = if sequence.repeatable { 2 } else { SHARED_MIN };
        let Some(salt) = salt.filter(|_| self.kv.length(id) >= least) else {
            return self.kv.forget(id);
        };
        let sharers = Sharers {
            salt: Some(salt),
            siblings: None,
        };
        if self.is_kept_already(id, &sequence.tokens, &sharers) {
            return self.kv.forget(id);
        }
        self.kv.rest(id);
        let tokens = sequence.tokens.clone();
        self.kept.keep(id, tokens, sharers, Origin::Ended);
    }

    /// Whether something is kept that serves whoever would begin with all that the sequence has; it counts as used.
    pub(super) fn is_kept_already(
        &mut self,
        id: SequenceId,
        tokens: &Tokens,
        sharers: &Sharers,
    ) -> bool {
        let length = self.kv.length(id);
        let mut kept = self.kept.entries.iter_mut();
        let same = kept.find(|(other, entry)| {
            let there = self.kv.length(**other);
            entry.sharers.salt == sharers.salt
                && (sharers.salt.is_some() || entry.sharers == *sharers)
                && match self.capacity.forks {
                    Forks::Anywhere => there >= length,
                    Forks::AtEnd => there == length,
                }
                && entry.tokens.at(length - 1) == tokens.at(length - 1)
                && entry.tokens.common(tokens) >= length
        });
        let Some((&same, entry)) = same else {
            return false;
        };
        entry.sharers.siblings = sharers.siblings.or(entry.sharers.siblings);
        self.kept.touch(same);
        true
    }

    /// Frees so many cells, if those that are kept have them.
    pub(super) fn make_room(&mut self, cells: u32) -> bool {
        while self.kv.free_cells() < cells {
            let Some(id) = self.oldest_kept(None) else {
                return false;
            };
            let (length, own) = (self.kv.length(id), self.kv.own_cells(id));
            let missing = (cells - self.kv.free_cells()).max(SHARED_MIN);
            let may_cut = self.capacity.forks == Forks::Anywhere;
            if may_cut && missing < own && length - missing >= SHARED_MIN {
                self.kv.truncate(id, length - missing);
            } else {
                self.let_go(id);
            }
        }
        true
    }

    pub(super) fn age_kept(&mut self, rows: u32) {
        self.kept.rows += u64::from(rows);
        if !self.repeatable_runs_alone() {
            self.let_go_of_aged();
        }
    }

    /// Lets go of what has been kept for too long.
    pub(super) fn let_go_of_aged(&mut self) {
        while let Some(id) = self.oldest_kept(None)
            && self.kept.rows - self.kept.entries[&id].rows > self.kept.patience
            && !self.is_awaited(id)
        {
            if let Some(entry) = self.kept.entries.remove(&id) {
                self.kept.was_of_no_use(entry, self.kv.length(id));
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

    pub(super) fn let_go(&mut self, id: SequenceId) {
        self.kept.entries.remove(&id);
        self.kv.forget(id);
    }

    /// A sequence that has the first `length` tokens of `from`: a kept one that has no more and needn't stay, else a fork.
    pub(super) fn take(
        &mut self,
        from: SequenceId,
        length: u32,
        account: &str,
        repeats: bool,
    ) -> Option<SequenceId> {
        self.kept.touch(from);
        let is_kept = self.kept.has(from);
        if is_kept && repeats {
            if self.kv.length(from) > length {
                self.kv.truncate(from, length);
            }
            return Some(self.take_over(from));
        }
        if is_kept && self.kv.length(from) == length && !self.kept.is_snapshot(from) {
            return Some(self.take_over(from));
        }
        if let Some(to) = self.fork(from, length, account) {
            return Some(to);
        }
        (is_kept && !(self.awaiting(from) > 1 && self.may_hold_on())).then(|| {
            if self.kv.length(from) > length {
                self.kv.truncate(from, length);
            }
            self.take_over(from)
        })
    }

    fn take_over(&mut self, id: SequenceId) -> SequenceId {
        self.kept.entries.remove(&id);
        self.kv.wake(id);
        id
    }

    pub(super) fn fork(
        &mut self,
        from: SequenceId,
        length: u32,
        account: &str,
    ) -> Option<SequenceId> {
        if self.kv.free_sequences() == 0 {
            self.spare(Some(from), account)?;
        }
        self.kv.fork(from, length)
    }

    /// An empty sequence.
    pub(super) fn open(&mut self, account: &str) -> Option<SequenceId> {
        if self.kv.free_sequences() == 0 {
            self.spare(None, account)?;
        }
        self.kv.open()
    }

    /// Lets go of what is kept in one sequence, unless the account that needs it waits for that itself.
    fn spare(&mut self, except: Option<SequenceId>, account: &str) -> Option<()> {
        let oldest = self.oldest_kept(except)?;
        if self.is_awaited_by(oldest, account) && self.may_hold_on() {
            return None;
        }
        self.let_go(oldest);
        Some(())
    }

    /// What hasn't been used for the longest; what somebody waits for goes last.
    fn oldest_kept(&self, except: Option<SequenceId>) -> Option<SequenceId> {
        let all = self.kept.entries.iter();
        let all = all.filter(|(id, _)| Some(**id) != except);
        all.min_by_key(|(id, entry)| (self.is_awaited(**id), entry.used))
            .map(|(&id, _)| id)
    }

    /// The longest beginning that is there, unless a longer one is coming.
    pub(super) fn source(&self, draft: &Draft<'_>, choice: ChoiceId) -> Source {
        if let Some((from, length)) = self.left_before(choice) {
            return Source::Ready { from, length };
        }
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
            forks: self.capacity.forks,
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
                // Where it doesn't pause, nobody can leave it.
                let coming = match self.capacity.forks {
                    Forks::Anywhere => common,
                    Forks::AtEnd => running.marks.last(there, common).unwrap_or(0),
                };
                if there < coming && !draft.is_blocked(other.request) {
                    search.coming = search.coming.max(coming);
                }
            }
        }
        for (&id, entry) in &self.kept.entries {
            let there = self.kv.length(id);
            let Sharers { salt, siblings: of } = &entry.sharers;
            if of.as_ref() == Some(siblings.start()) {
                search.see(id, &entry.tokens, there, 1);
            } else if salt.is_some() && *salt == sequence.salt {
                search.see(id, &entry.tokens, there, SHARED_MIN);
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
    forks: Forks,
    best: Option<(SequenceId, u32)>,
    /// What will be there soon.
    coming: u32,
}

impl Search<'_> {
    /// Looks at a sequence of which the first `there` tokens are computed; how many are of use when all are, or
    /// 0 if it is clear that they are no more than those of the best until now.
    fn see(&mut self, id: SequenceId, tokens: &Tokens, there: u32, least: u32) -> u32 {
        let best = self.best.map_or(0, |(_, length)| length);
        let is_more = tokens.at(best).is_some() && tokens.at(best) == self.of.at(best);
        if self.forks == Forks::Anywhere && (best >= self.wanted || !is_more) {
            return 0;
        }
        let common = tokens.common(self.of).min(self.wanted);
        let length = self.reusable(tokens, reusable(self.forks, common, there));
        // Of equal ones a kept one, which comes last, can be taken when no sequence is free.
        let is_better = length > best || (self.forks == Forks::AtEnd && length == best);
        if length >= least && is_better {
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

/// How many of `common` tokens one can begin with, where `there` are computed.
fn reusable(forks: Forks, common: u32, there: u32) -> u32 {
    match forks {
        Forks::Anywhere => common.min(there),
        Forks::AtEnd if there <= common => there,
        Forks::AtEnd => 0,
    }
}

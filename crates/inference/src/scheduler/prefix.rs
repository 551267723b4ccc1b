//! The prefix cache: a choice reuses the KV cells of a sequence that begins with the same tokens, one that still runs
//! or one that is kept after its end. Both must have the same salt.
//!
//! With [`Forks::AtEnd`], a sequence is of use only if all of its tokens are a prefix of the new one
//! ([`snapshots`](crate::scheduler::snapshots)).
//!
//! Kept sequences are evicted, the least recently used first and from its end, when their cells or sequences are
//! needed. They also expire: when keeping them has cost as much as computing them again would, or far earlier where
//! nothing is ever reused.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Batching, Forks, SequenceId};
use crate::scheduler::plan::StepBuilder;
use crate::scheduler::sequence::{Sequence, Tokens};
use crate::scheduler::{ChoiceId, Scheduler};

/// The shortest prefix that is worth a fork: any two prompts of one chat template have a few tokens in common.
pub(super) const SHARED_MIN: u32 = 16;

/// A kept sequence that isn't used expires after [`Model::ttl_tokens`](crate::model::Model::ttl_tokens) decode tokens at
/// the latest: by then, keeping it has cost as much as it would save. Before anything was learnt, it expires after this
/// fraction (1/8) of them.
const TTL_START: u64 = 8;
/// Where nothing is ever reused, sequences expire after this fraction (1/32) of `ttl_tokens`.
const TTL_MIN: u64 = 32;
/// The number of expired sequences that are remembered, to find out whether they would have been of use.
const MISSED_MAX: usize = 64;

/// The cached prefix of a waiting choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefixMatch {
    /// The first `length` tokens of the sequence `from` are the choice's.
    Ready {
        from: SequenceId,
        length: u32,
    },
    /// Another choice is computing the prefix; waiting for it saves doing so again.
    Computing,
    Nowhere,
}

/// The kept sequences of the prefix cache.
#[derive(Debug)]
pub(super) struct PrefixCache {
    forks: Forks,
    entries: BTreeMap<SequenceId, Entry>,
    uses: u64,
    /// Decode tokens computed so far.
    rows: u64,
    /// The decode tokens after which an unused entry expires. Raised when an entry is used, or would have been if it
    /// hadn't expired; lowered when an entry expires.
    ttl: u64,
    ttl_max: u64,
    /// The last entries that have expired, the oldest first. They have no cells.
    missed: VecDeque<Missed>,
}

#[derive(Debug)]
struct Entry {
    /// The sequence's tokens: at least those that are in the cache.
    tokens: Tokens,
    scope: CacheScope,
    origin: Origin,
    /// The number of the entry's last use.
    used: u64,
    /// The number of decode tokens at the entry's last use.
    rows: u64,
}

/// The choices that may reuse a kept sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CacheScope {
    pub(super) cache_salt: Option<Arc<str>>,
    /// Choices of the prompt with this first choice, as long as one of them waits.
    pub(super) siblings: Option<ChoiceId>,
}

/// Why a sequence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The choice that computed the sequence has ended or was preempted. A choice that continues from its end takes it
    /// over.
    Ended,
    /// A copy made where several choices will branch off. A choice forks it, so that it stays for the others.
    Snapshot,
}

#[derive(Debug)]
struct Missed {
    tokens: Tokens,
    cache_salt: Arc<str>,
    /// The number of tokens that were in the cache.
    length: u32,
    /// The entry's `rows`.
    rows: u64,
}

impl CacheScope {
    pub(super) fn include(&self, choice: ChoiceId, sequence: &Sequence) -> bool {
        self.siblings.as_ref() == Some(choice.siblings(sequence).start())
            || (self.cache_salt.is_some() && self.cache_salt == sequence.cache_salt)
    }
}

impl PrefixCache {
    pub(super) fn new(forks: Forks, ttl_tokens: Option<u32>) -> Self {
        let ttl_max = ttl_tokens.map_or(u64::MAX, u64::from);
        PrefixCache {
            forks,
            entries: BTreeMap::new(),
            uses: 0,
            rows: 0,
            ttl: ttl_max / TTL_START,
            ttl_max,
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

    /// The kept sequence with the same prompt and the same salt. Without a salt nothing is shared.
    pub(super) fn of_prompt(&self, sequence: &Sequence) -> Option<SequenceId> {
        let is_same = |entry: &Entry| {
            entry.scope.cache_salt.is_some()
                && entry.scope.cache_salt == sequence.cache_salt
                && entry.tokens.prompt == sequence.tokens.prompt
        };
        let mut entries = self.entries.iter();
        entries.find(|(_, entry)| is_same(entry)).map(|(&id, _)| id)
    }

    pub(super) fn entry(&self, id: SequenceId) -> Option<(&Tokens, &CacheScope)> {
        let entry = self.entries.get(&id)?;
        Some((&entry.tokens, &entry.scope))
    }

    fn has(&self, id: SequenceId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn is_shared(&self, id: SequenceId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.scope.cache_salt.is_some())
    }

    fn is_snapshot(&self, id: SequenceId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.origin == Origin::Snapshot)
    }

    /// Records that no choice of the prompt waits any more. Returns the kept sequences that no other request may reuse.
    pub(super) fn release(&mut self, first: ChoiceId) -> Vec<SequenceId> {
        let mut useless = Vec::new();
        for (&id, entry) in &mut self.entries {
            let scope = &mut entry.scope;
            if scope.siblings.take_if(|it| *it == first).is_some() && scope.cache_salt.is_none() {
                useless.push(id);
            }
        }
        useless
    }

    /// The tokens of all sequences that are kept for a salt, or expired lately. Without a salt nothing is shared.
    pub(super) fn known(&self, cache_salt: Option<&Arc<str>>) -> impl Iterator<Item = &Tokens> {
        let kept = self.entries.values().filter(move |entry| {
            cache_salt.is_some() && entry.scope.cache_salt.as_ref() == cache_salt
        });
        let missed = self
            .missed
            .iter()
            .filter(move |missed| Some(&missed.cache_salt) == cache_salt);
        kept.map(|entry| &entry.tokens)
            .chain(missed.map(|missed| &missed.tokens))
    }

    pub(super) fn keep(
        &mut self,
        id: SequenceId,
        tokens: Tokens,
        scope: CacheScope,
        origin: Origin,
    ) {
        let entry = Entry {
            tokens,
            scope,
            origin,
            used: 0,
            rows: 0,
        };
        self.entries.insert(id, entry);
        self.touch(id);
    }

    /// Learns how long to keep entries from a new sequence that reuses `length` tokens; `was_kept` if a kept sequence
    /// has them.
    pub(super) fn learn(&mut self, sequence: &Sequence, length: u32, was_kept: bool) {
        if was_kept || self.misses(sequence, length) {
            self.ttl = self.ttl.saturating_mul(2).min(self.ttl_max);
        }
    }

    fn was_of_no_use(&mut self, entry: Entry, length: u32) {
        self.ttl = (self.ttl - self.ttl / 8).max(self.ttl_max / TTL_MIN);
        let Some(cache_salt) = entry.scope.cache_salt else {
            return;
        };
        self.missed.push_back(Missed {
            tokens: entry.tokens,
            cache_salt,
            length,
            rows: entry.rows,
        });
        if self.missed.len() > MISSED_MAX {
            self.missed.pop_front();
        }
    }

    /// Whether more of a new sequence than `length` tokens would be cached, had an entry not expired. That entry is
    /// forgotten.
    fn misses(&mut self, sequence: &Sequence, length: u32) -> bool {
        let oldest = self.rows.saturating_sub(self.ttl_max);
        self.missed.retain(|entry| entry.rows >= oldest);
        let forks = self.forks;
        let missed = self.missed.iter().position(|missed| {
            sequence.cache_salt.as_ref() == Some(&missed.cache_salt) && {
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
    /// Ends the computation of a sequence. It is kept if another request may reuse it.
    pub(super) fn retire(&mut self, id: SequenceId, sequence: &Sequence) {
        let cache_salt = sequence.cache_salt.clone();
        let least = if sequence.repeatable { 2 } else { SHARED_MIN };
        let Some(cache_salt) = cache_salt.filter(|_| self.kv.length(id) >= least) else {
            return self.kv.forget(id);
        };
        let scope = CacheScope {
            cache_salt: Some(cache_salt),
            siblings: None,
        };
        if self.is_kept_already(id, &sequence.tokens, &scope) {
            return self.kv.forget(id);
        }
        self.kv.rest(id);
        let tokens = sequence.tokens.clone();
        self.kept.keep(id, tokens, scope, Origin::Ended);
    }

    /// Whether a kept sequence serves every choice that could reuse this one; that counts as a use of it.
    pub(super) fn is_kept_already(
        &mut self,
        id: SequenceId,
        tokens: &Tokens,
        scope: &CacheScope,
    ) -> bool {
        let length = self.kv.length(id);
        let mut kept = self.kept.entries.iter_mut();
        let same = kept.find(|(other, entry)| {
            let there = self.kv.length(**other);
            entry.scope.cache_salt == scope.cache_salt
                && (scope.cache_salt.is_some() || entry.scope == *scope)
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
        entry.scope.siblings = scope.siblings.or(entry.scope.siblings);
        self.kept.touch(same);
        true
    }

    /// Evicts kept sequences until this many cells are free. `false` if there aren't enough.
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

    /// Evicts the kept sequences that have expired.
    pub(super) fn let_go_of_aged(&mut self) {
        while let Some(id) = self.oldest_kept(None)
            && self.kept.rows - self.kept.entries[&id].rows > self.kept.ttl
            && !self.is_awaited(id)
        {
            if let Some(entry) = self.kept.entries.remove(&id) {
                self.kept.was_of_no_use(entry, self.kv.length(id));
            }
            self.kv.forget(id);
        }
    }

    /// Evicts all kept sequences. Returns whether there were any.
    pub fn forget_kept(&mut self) -> bool {
        let ids: Vec<_> = self.kept.entries.keys().copied().collect();
        ids.iter().for_each(|&id| self.let_go(id));
        !ids.is_empty()
    }

    pub(super) fn let_go(&mut self, id: SequenceId) {
        self.kept.entries.remove(&id);
        self.kv.forget(id);
    }

    /// A sequence with the first `length` tokens of `from`: `from` itself if it is kept, has no more tokens and isn't a
    /// snapshot, or if the choice repeats an earlier request; otherwise a fork. Where no id is free for a fork, `from`
    /// itself if it is kept and not held for other choices.
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

    /// Opens an empty sequence. Evicts a kept one if no id is free.
    pub(super) fn open(&mut self, account: &str) -> Option<SequenceId> {
        if self.kv.free_sequences() == 0 {
            self.spare(None, account)?;
        }
        self.kv.open()
    }

    /// Evicts one kept sequence, unless the account that needs its id waits for that sequence itself.
    fn spare(&mut self, except: Option<SequenceId>, account: &str) -> Option<()> {
        let oldest = self.oldest_kept(except)?;
        if self.is_awaited_by(oldest, account) && self.may_hold_on() {
            return None;
        }
        self.let_go(oldest);
        Some(())
    }

    /// The least recently used kept sequence; those that choices wait for come last.
    fn oldest_kept(&self, except: Option<SequenceId>) -> Option<SequenceId> {
        let all = self.kept.entries.iter();
        let all = all.filter(|(id, _)| Some(**id) != except);
        all.min_by_key(|(id, entry)| (self.is_awaited(**id), entry.used))
            .map(|(&id, _)| id)
    }

    /// The longest cached prefix of a waiting choice, unless a longer one is being computed.
    pub(super) fn source(&self, builder: &StepBuilder<'_>, choice: ChoiceId) -> PrefixMatch {
        if let Some((from, length)) = self.left_before(choice) {
            return PrefixMatch::Ready { from, length };
        }
        let sequence = &self.waiting[&choice];
        let siblings = choice.siblings(sequence);
        // The last known token is always computed, for its logits, and so are the positions to be scored.
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
                    return PrefixMatch::Computing;
                }
                search.see(*id, &running.tokens, there, 1);
            } else if sequence.cache_salt.is_some() && sequence.cache_salt == running.cache_salt {
                let common = search.see(*id, &running.tokens, there, SHARED_MIN);
                // With [`Forks::AtEnd`], a sequence can be forked only where it pauses.
                let coming = match self.capacity.forks {
                    Forks::Anywhere => common,
                    Forks::AtEnd => running.marks.last(there, common).unwrap_or(0),
                };
                if there < coming && !builder.is_blocked(other.request) {
                    search.coming = search.coming.max(coming);
                }
            }
        }
        for (&id, entry) in &self.kept.entries {
            let there = self.kv.length(id);
            let CacheScope {
                cache_salt,
                siblings: of,
            } = &entry.scope;
            if of.as_ref() == Some(siblings.start()) {
                search.see(id, &entry.tokens, there, 1);
            } else if cache_salt.is_some() && *cache_salt == sequence.cache_salt {
                search.see(id, &entry.tokens, there, SHARED_MIN);
            }
        }
        search.found()
    }
}

/// A search for sequences with a common prefix.
struct Search<'a> {
    of: &'a Tokens,
    /// The most tokens that are of use.
    wanted: u32,
    /// With [`Batching::OneSequence`], the tokens of a chunk: logits depend on how prompts are cut into chunks.
    chunk: Option<u32>,
    forks: Forks,
    best: Option<(SequenceId, u32)>,
    /// The longest prefix that is being computed.
    coming: u32,
}

impl Search<'_> {
    /// Looks at a sequence of which the first `there` tokens are computed. Returns how many tokens are of use when all
    /// are computed, or 0 if it is clear that they are no more than the best so far.
    fn see(&mut self, id: SequenceId, tokens: &Tokens, there: u32, least: u32) -> u32 {
        let best = self.best.map_or(0, |(_, length)| length);
        let is_more = tokens.at(best).is_some() && tokens.at(best) == self.of.at(best);
        if self.forks == Forks::Anywhere && (best >= self.wanted || !is_more) {
            return 0;
        }
        let common = tokens.common(self.of).min(self.wanted);
        let length = self.reusable(tokens, reusable(self.forks, common, there));
        // Of equal matches a kept one, which comes last here, is better: it can be taken over when no id is free.
        let is_better = length > best || (self.forks == Forks::AtEnd && length == best);
        if length >= least && is_better {
            self.best = Some((id, length));
        }
        self.reusable(tokens, common)
    }

    /// How many of the common tokens were computed in the chunks in which the new sequence would compute them.
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

    fn found(self) -> PrefixMatch {
        let length = self.best.map_or(0, |(_, length)| length);
        if self.coming >= length + SHARED_MIN {
            return PrefixMatch::Computing;
        }
        match self.best {
            Some((from, length)) => PrefixMatch::Ready { from, length },
            None => PrefixMatch::Nowhere,
        }
    }
}

/// How many of `common` tokens can be reused from a sequence of which `there` tokens are computed.
fn reusable(forks: Forks, common: u32, there: u32) -> u32 {
    match forks {
        Forks::Anywhere => common.min(there),
        Forks::AtEnd if there <= common => there,
        Forks::AtEnd => 0,
    }
}

//! Decides what the next step computes. Pure: no clock, no randomness and no channel.
//!
//! Each choice of a request has tokens that are known and tokens that are in the KV cache; every step lets the latter
//! catch up, and when they have, the logits of the last one give the next. There is no prefill phase and no decode
//! phase.
//!
//! [`Scheduler::plan`] builds the next step, [`Scheduler::commit`] records its outcome. Accounts take turns ([`fair`]);
//! within an account, older choices go first. Choices that begin with the same tokens share KV cells ([`prefix`]). When
//! the cache is full, the youngest choice is preempted: it loses its cells and waits to be computed again.

mod admit;
mod aside;
mod fair;
mod guesses;
mod kv;
mod ngrams;
mod plan;
mod prefix;
mod repeat;
mod runs;
mod sequence;
mod single_sequence;
mod snapshots;
mod speculation;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use weir_engine::Token;

use crate::model::{Batching, Capacity, Forks, SequenceId};
use crate::scheduler::aside::Aside;
use crate::scheduler::fair::Accounts;
pub use crate::scheduler::kv::{CacheOp, Kv};
use crate::scheduler::ngrams::Ngrams;
pub use crate::scheduler::plan::{Sampled, Scored, Step, StepBudget};
use crate::scheduler::prefix::PrefixCache;
use crate::scheduler::sequence::Sequence;
pub use crate::scheduler::speculation::{Chosen, Drafted};

/// A request's number, in the order of arrival: a smaller one is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A choice of a request, numbered as in events. A smaller id is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChoiceId {
    pub request: RequestId,
    pub choice: u32,
}

/// A request to the scheduler. Each prompt and `output_max` together fit the cache.
#[derive(Debug, Clone)]
pub struct Job {
    pub prompts: Vec<Arc<[Token]>>,
    /// The number of choices of each prompt.
    pub choices: u32,
    /// The most tokens of each choice.
    pub output_max: u32,
    /// Whether the logits after each prompt token are wanted. They are computed once per prompt.
    pub scored: bool,
    /// The scope of the prefix cache: requests with the same salt share prefixes. Without one, only the choices of a
    /// prompt share it.
    pub cache_salt: Option<Arc<str>>,
    /// The account that sent the request; accounts of equal weight get equal shares of each step and of the cache.
    pub account: Arc<str>,
    /// The account's weight: its number of shares.
    pub weight: NonZeroU32,
    /// Whether the request is to be computed in the same way when it comes again and runs alone: see [`repeat`].
    pub repeatable: bool,
    /// Whether to use speculative decoding for its choices.
    pub drafts: bool,
}

/// The outcome of sampling a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The choice continues with this token.
    Token(Token),
    /// No token is chosen yet. All tokens of the choice are computed, so it waits for [`Scheduler::resume`].
    Parked,
    Ended,
}

#[derive(Debug)]
pub struct Scheduler {
    capacity: Capacity,
    output_expected: u32,
    kv: Kv,
    /// Whether a choice of the request was ever admitted.
    begun: BTreeMap<RequestId, bool>,
    waiting: BTreeMap<ChoiceId, Sequence>,
    running: BTreeMap<ChoiceId, (SequenceId, Sequence)>,
    /// The prompts, by their first choice.
    prompts: BTreeMap<ChoiceId, Prompt>,
    kept: PrefixCache,
    accounts: Accounts,
    /// The number of steps that were computed.
    steps: u64,
    /// The most tokens of a step: fewer for a while after the model's cache was full.
    rows_max: u32,
    admission: Admission,
    aside: Aside,
    preemptions: u64,
    drafted: Drafted,
    /// No tokens are drafted before `steps` reaches this number.
    drafts_from: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// The model's cache was full with fewer tokens than it should hold: no choice is admitted until one has ended,
    /// since otherwise the same would happen again and again.
    UntilOneEnds,
}

/// The state that a prompt's choices have in common.
#[derive(Debug)]
struct Prompt {
    /// The positions whose logits are still wanted.
    unscored: Range<u32>,
    /// The number of tokens that were in the cache when its first choice was admitted; `None` before.
    cached: Option<u32>,
    ngrams: Ngrams,
}

impl Scheduler {
    /// KV cells for `output_expected` tokens of each choice are kept free when it is admitted. `ttl_tokens` is
    /// [`Model::ttl_tokens`](crate::model::Model::ttl_tokens).
    pub fn new(capacity: Capacity, output_expected: u32, ttl_tokens: Option<u32>) -> Self {
        assert!(
            capacity.batching == Batching::Together || capacity.forks == Forks::Anywhere,
            "steps of fixed shapes don't pause where others fork"
        );
        Scheduler {
            capacity,
            output_expected,
            kv: Kv::new(capacity.cells, capacity.sequences),
            begun: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            prompts: BTreeMap::new(),
            kept: PrefixCache::new(capacity.forks, ttl_tokens),
            accounts: Accounts::default(),
            steps: 0,
            rows_max: capacity.rows,
            admission: Admission::Open,
            aside: Aside::default(),
            preemptions: 0,
            drafted: Drafted::default(),
            drafts_from: 0,
        }
    }

    /// Puts all choices of a request into the queue.
    pub fn enqueue(&mut self, request: RequestId, job: &Job) {
        self.begun.insert(request, false);
        for (first, prompt) in (0..).step_by(job.choices as usize).zip(&job.prompts) {
            assert!(!prompt.is_empty(), "a prompt without tokens");
            assert!(
                prompt.len() + job.output_max as usize <= self.capacity.cells as usize,
                "{job:?} can never fit"
            );
            let last = u32::try_from(prompt.len() - 1).expect("no longer than the context");
            let unscored = if job.scored { 0..last } else { 0..0 };
            let siblings = first..first + job.choices;
            for choice in siblings.clone() {
                let mut sequence = Sequence::new(Arc::clone(prompt), siblings.clone(), job);
                if self.capacity.forks == Forks::AtEnd {
                    // The model's state can't be rolled back after a wrong draft token.
                    sequence.guesses = None;
                }
                if choice == first {
                    self.mark_running(&sequence);
                }
                let choice = ChoiceId { request, choice };
                self.accounts.add(&job.account, job.weight, choice);
                self.waiting.insert(choice, sequence);
            }
            let choice = first;
            let cached = None;
            let ngrams = Ngrams::new(0);
            let prompt = Prompt {
                unscored,
                cached,
                ngrams,
            };
            self.prompts.insert(ChoiceId { request, choice }, prompt);
        }
    }

    /// Drops what is left of a request. Its computed tokens may stay in the prefix cache.
    pub fn remove(&mut self, request: RequestId) {
        self.begun.remove(&request);
        let all = request.all();
        for choice in keys(&self.waiting, all.clone()) {
            self.leave(choice);
        }
        for choice in keys(&self.running, all.clone()) {
            self.leave(choice);
        }
        for first in keys(&self.prompts, all) {
            self.prompts.remove(&first);
        }
        self.admission = Admission::Open;
    }

    /// Drops a request, and keeps none of its tokens in the prefix cache: its last step failed.
    pub fn discard(&mut self, request: RequestId) {
        for choice in keys(&self.running, request.all()) {
            self.give_up_aside(choice);
            if let Some((id, sequence)) = self.running.remove(&choice) {
                self.accounts.stop(&sequence.account);
                self.accounts.remove(&sequence.account, choice);
                self.kv.forget(id);
            }
        }
        self.remove(request);
    }

    /// Records a computed step. `chosen` has the outcome of each sampled choice, in the order of `step.sampled`.
    pub fn commit(&mut self, step: &Step, chosen: &[Chosen]) {
        assert_eq!(
            step.sampled.len(),
            chosen.len(),
            "one outcome for each choice that was sampled"
        );
        self.steps += 1;
        for &(choice, rows) in &step.advanced {
            let (id, sequence) = self.running.get_mut(&choice).expect("it is in the step");
            self.kv.extend(*id, rows);
            sequence.stepped = self.steps;
            self.accounts.step(&sequence.account, self.steps);
            self.accounts.serve(&sequence.account, rows);
        }
        self.count_outputs(step);
        for scored in &step.scored {
            let prompt = self.prompts.get_mut(&scored.first);
            let prompt = prompt.expect("what is scored is known");
            prompt.unscored.start = scored.position + 1;
        }
        let rows = u32::try_from(step.rows.len()).expect("a step's rows fit a u32");
        self.age_kept(rows - step.prompt_rows);
        self.rows_max = self.capacity.rows.min(self.rows_max * 2);
        for (sampled, chosen) in step.sampled.iter().zip(chosen) {
            self.accept(step, sampled.choice, chosen.accepted);
            self.resume(sampled.choice, chosen.next);
        }
    }

    /// Records the outcome of a choice that was sampled or parked. The choice may have been preempted meanwhile.
    pub fn resume(&mut self, choice: ChoiceId, next: Next) {
        match next {
            Next::Token(token) => {
                let running = self.running.get_mut(&choice).map(|(_, sequence)| sequence);
                running
                    .or_else(|| self.waiting.get_mut(&choice))
                    .expect("only choices that go on are sampled")
                    .push(token);
            }
            Next::Parked => {}
            Next::Ended => self.end(choice),
        }
    }

    /// Handles a step for which the model had no KV cells, though the scheduler counts enough; nothing of it was
    /// computed. Returns the choices that have the cache to themselves and still can't continue; they have ended for
    /// the scheduler.
    pub fn cache_full(&mut self, step: &Step) -> Vec<ChoiceId> {
        if !step.drafted.is_empty() {
            self.pause_drafts();
            return vec![];
        }
        if self.forget_kept() {
            return vec![];
        }
        self.admission = Admission::UntilOneEnds;
        let mut running = self.running.keys().copied();
        let oldest = running.next();
        if let Some(youngest) = running.next_back() {
            self.preempt(youngest);
            return vec![];
        }
        let rows = u32::try_from(step.rows.len()).expect("a step's rows fit a u32");
        if rows > 1 {
            self.rows_max = rows / 2;
            return vec![];
        }
        oldest
            .into_iter()
            .inspect(|&choice| self.end(choice))
            .collect()
    }

    /// Handles the loss of the model's whole cache: every running choice is preempted and will be computed again.
    pub fn lost(&mut self) {
        self.forget_kept();
        for (choice, (id, sequence)) in std::mem::take(&mut self.running) {
            self.preemptions += 1;
            self.give_up_aside(choice);
            self.accounts.stop(&sequence.account);
            self.kv.forget(id);
            self.waiting.insert(choice, sequence);
        }
    }

    /// The number of choices that are decoding: one token away from their next one, or parked.
    pub fn decoding(&self) -> usize {
        let all = self.running.values();
        all.filter(|(id, sequence)| self.kv.length(*id) + 1 >= sequence.known())
            .count()
    }

    /// The number of accounts with choices that run or wait.
    pub fn accounts(&self) -> u32 {
        self.accounts.active()
    }

    /// The number of the last step that computed tokens of the account; `None` if the account isn't known.
    pub fn stepped(&self, account: &str) -> Option<u64> {
        self.accounts.stepped(account)
    }

    fn caught_up(&self) -> impl Iterator<Item = ChoiceId> {
        let all = self.running.iter();
        all.filter(|(_, (id, sequence))| self.kv.length(*id) + 1 == sequence.known())
            .map(|(&choice, _)| choice)
    }

    /// Whether all known tokens of the choice are computed, so that it waits for its next token to be chosen.
    fn is_parked(&self, choice: ChoiceId) -> bool {
        let running = self.running.get(&choice);
        running.is_some_and(|(id, sequence)| self.kv.length(*id) == sequence.known())
    }

    /// Requests of which no choice was ever admitted.
    pub fn not_begun(&self) -> impl Iterator<Item = RequestId> {
        self.begun
            .iter()
            .filter(|(_, begun)| !**begun)
            .map(|(&request, _)| request)
    }

    /// Takes the operations that the model's cache has to do, if no [`plan`](Self::plan) follows that would take them.
    pub fn take_cache_ops(&mut self) -> Vec<CacheOp> {
        self.kv.take_ops()
    }

    /// Whether the request has choices that haven't ended.
    pub fn knows(&self, request: RequestId) -> bool {
        self.begun.contains_key(&request)
    }

    /// The number of preemptions: how often a choice lost its KV cells before it had ended.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The number of sequences in the prefix cache.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// Ends a choice. The request is removed with its last choice.
    fn end(&mut self, choice: ChoiceId) {
        self.leave(choice);
        self.admission = Admission::Open;
        if self.running.range(choice.request.all()).next().is_none()
            && self.waiting.range(choice.request.all()).next().is_none()
        {
            self.remove(choice.request);
        }
    }

    /// Takes a running choice's cells away; it waits to be computed again.
    fn preempt(&mut self, choice: ChoiceId) {
        self.preemptions += 1;
        if let Some(sequence) = self.stop(choice) {
            self.waiting.insert(choice, sequence);
        }
    }

    /// Removes a choice, running or waiting.
    fn leave(&mut self, choice: ChoiceId) {
        let sequence = self.stop(choice).or_else(|| self.waiting.remove(&choice));
        let sequence = sequence.expect("only what is known ends");
        self.accounts.remove(&sequence.account, choice);
        self.release(choice, &sequence);
    }

    fn stop(&mut self, choice: ChoiceId) -> Option<Sequence> {
        let (id, sequence) = self.running.remove(&choice)?;
        self.give_up_aside(choice);
        self.accounts.stop(&sequence.account);
        self.retire(id, &sequence);
        Some(sequence)
    }
}

impl RequestId {
    fn all(self) -> std::ops::RangeInclusive<ChoiceId> {
        ChoiceId {
            request: self,
            choice: 0,
        }..=ChoiceId {
            request: self,
            choice: u32::MAX,
        }
    }
}

/// The keys of a range, copied so that entries can be removed meanwhile.
fn keys<V>(
    map: &BTreeMap<ChoiceId, V>,
    range: std::ops::RangeInclusive<ChoiceId>,
) -> Vec<ChoiceId> {
    map.range(range).map(|(&choice, _)| choice).collect()
}

#[cfg(test)]
mod tests;

//! What is computed next: pure, with no clock, no randomness and no channel.
//!
//! Each choice of a request has tokens that are known and tokens that are in the cache; every step lets
//! the latter catch up, and when they have, the logits of the last one give the next. There is no
//! prefill phase and no decode phase.
//!
//! [`Scheduler::plan`] says what the next step is, [`Scheduler::commit`] what came of it. Accounts
//! take turns ([`fair`]), and older choices of an account go first. What was computed for one is shared with others that begin alike ([`prefix`]). When
//! the cache is full the youngest loses its cells and waits to be computed again.

mod admit;
mod alone;
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
mod snapshots;
mod speculation;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use crate::Token;
use crate::model::{Batching, Capacity, Forks, SequenceId};
use crate::scheduler::aside::Aside;
use crate::scheduler::fair::Accounts;
pub use crate::scheduler::kv::{CacheOp, Kv};
use crate::scheduler::ngrams::Ngrams;
pub use crate::scheduler::plan::{Room, Sampled, Scored, Step};
use crate::scheduler::prefix::Kept;
use crate::scheduler::sequence::Sequence;
pub use crate::scheduler::speculation::{Chosen, Drafted};

/// Numbered as they come: a smaller one is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A choice of a request, as events number them. Their order is their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChoiceId {
    pub request: RequestId,
    pub choice: u32,
}

/// What a request asks of the scheduler. Each prompt and `output_max` together fit the cache.
#[derive(Debug, Clone)]
pub struct Job {
    pub prompts: Vec<Arc<[Token]>>,
    /// Of each prompt.
    pub choices: u32,
    /// Of each choice.
    pub output_max: u32,
    /// Whether the logits after each token of a prompt are wanted, once.
    pub scored: bool,
    /// Requests with the same salt share what they begin with; without one it is shared with nobody.
    pub salt: Option<Arc<str>>,
    /// Whose it is: accounts of equal weight have equal parts of what there is.
    pub account: Arc<str>,
    /// Of the account: it has so many parts.
    pub weight: NonZeroU32,
    /// Whether its rows alone are to be the same when it comes again: see [`repeat`].
    pub repeatable: bool,
    /// Whether what its choices may say next is guessed, and computed along with what they have said.
    pub drafts: bool,
}

/// What a choice does after its logits were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on with this token.
    Token(Token),
    /// Nobody has chosen a token yet. All its tokens are computed, and nothing more can be, until
    /// [`Scheduler::resume`] tells.
    Parked,
    Ended,
}

#[derive(Debug)]
pub struct Scheduler {
    capacity: Capacity,
    output_expected: u32,
    kv: Kv,
    /// Whether anything of the request was ever in a step.
    begun: BTreeMap<RequestId, bool>,
    waiting: BTreeMap<ChoiceId, Sequence>,
    running: BTreeMap<ChoiceId, (SequenceId, Sequence)>,
    /// By their first choice.
    prompts: BTreeMap<ChoiceId, Prompt>,
    kept: Kept,
    accounts: Accounts,
    /// Steps that were computed.
    steps: u64,
    /// Rows that the model is trusted with: fewer for a while after its cache was full.
    rows_max: u32,
    admission: Admission,
    aside: Aside,
    preemptions: u64,
    drafted: Drafted,
    /// The number of steps before which nothing is drafted.
    drafts_from: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// The model's cache was full with fewer tokens than it should hold: nobody comes in until
    /// somebody has left, else the same would happen again and again.
    UntilOneEnds,
}

/// What its choices have in common.
#[derive(Debug)]
struct Prompt {
    /// Positions whose logits are still wanted.
    unscored: Range<u32>,
    /// Tokens that were in the cache when it was begun.
    cached: Option<u32>,
    ngrams: Ngrams,
}

impl Scheduler {
    /// `output_expected` tokens of each choice are kept free when it is admitted.
    /// `keep_rows` is [`Model::keep_rows`](crate::model::Model::keep_rows).
    pub fn new(capacity: Capacity, output_expected: u32, keep_rows: Option<u32>) -> Self {
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
            kept: Kept::new(capacity.forks, keep_rows),
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
                    // What is guessed wrong couldn't be taken back.
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

    /// Nobody wants the rest of the request.
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

    /// The same, and what was computed for it is of no use to anybody.
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

    /// The step was computed, and this came of each choice that was sampled.
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

    /// What came of a choice that was sampled, or parked: it may have lost its cells meanwhile.
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

    /// The model had no cells for the step, though the accounts say so. Nothing of it was computed.
    /// Whoever is returned has the cache alone and can't go on; it is not scheduled any more.
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

    /// The model has lost all that its cache held: everybody is computed again.
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

    /// Choices whose next token is one row away, or only waits to be chosen.
    pub fn decoding(&self) -> usize {
        let all = self.running.values();
        all.filter(|(id, sequence)| self.kv.length(*id) + 1 >= sequence.known())
            .count()
    }

    /// Accounts that have something to compute, or wait.
    pub fn accounts(&self) -> u32 {
        self.accounts.active()
    }

    /// The number of the last step that computed something of an account, if it has something to compute.
    pub fn stepped(&self, account: &str) -> Option<u64> {
        self.accounts.stepped(account)
    }

    fn caught_up(&self) -> impl Iterator<Item = ChoiceId> {
        let all = self.running.iter();
        all.filter(|(_, (id, sequence))| self.kv.length(*id) + 1 == sequence.known())
            .map(|(&choice, _)| choice)
    }

    /// Whether all that is known of it is computed, so that it waits for its next token to be chosen.
    fn is_parked(&self, choice: ChoiceId) -> bool {
        let running = self.running.get(&choice);
        running.is_some_and(|(id, sequence)| self.kv.length(*id) == sequence.known())
    }

    /// Requests of which nothing was computed yet.
    pub fn not_begun(&self) -> impl Iterator<Item = RequestId> {
        self.begun
            .iter()
            .filter(|(_, begun)| !**begun)
            .map(|(&request, _)| request)
    }

    /// What the model's cache has to do, if no plan follows.
    pub fn take_cache_ops(&mut self) -> Vec<CacheOp> {
        self.kv.take_ops()
    }

    /// Whether some of the request's choices have not ended.
    pub fn knows(&self, request: RequestId) -> bool {
        self.begun.contains_key(&request)
    }

    /// How often cells were taken away from somebody who wasn't done.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Sequences that are kept for those that will begin like them.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// A choice has got its last token.
    fn end(&mut self, choice: ChoiceId) {
        self.leave(choice);
        self.admission = Admission::Open;
        if self.running.range(choice.request.all()).next().is_none()
            && self.waiting.range(choice.request.all()).next().is_none()
        {
            self.remove(choice.request);
        }
    }

    /// Takes the cells away; the choice will be computed again.
    fn preempt(&mut self, choice: ChoiceId) {
        self.preemptions += 1;
        if let Some(sequence) = self.stop(choice) {
            self.waiting.insert(choice, sequence);
        }
    }

    /// Nothing more is computed for the choice.
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

/// So that entries can be removed meanwhile.
fn keys<V>(
    map: &BTreeMap<ChoiceId, V>,
    range: std::ops::RangeInclusive<ChoiceId>,
) -> Vec<ChoiceId> {
    map.range(range).map(|(&choice, _)| choice).collect()
}

#[cfg(test)]
mod tests;

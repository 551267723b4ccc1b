//! What is computed next: pure, with no clock, no randomness and no channel.
//!
//! Each choice of a request has tokens that are known and tokens that are in the cache; every step lets
//! the latter catch up, and when they have, the logits of the last one give the next. There is no
//! prefill phase and no decode phase.
//!
//! [`Scheduler::plan`] says what the next step is, [`Scheduler::commit`] what came of it. Older choices
//! go first in everything. When the cache is full the youngest loses its cells and waits to be
//! computed again.

mod admit;
mod alone;
mod kv;
mod plan;
mod sequence;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::Token;
use crate::model::{Capacity, SequenceId};
pub use crate::scheduler::kv::{CacheOp, Kv};
pub use crate::scheduler::plan::{Sampled, Scored, Step};
use crate::scheduler::sequence::{Sequence, Trunk};

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
    /// By the first choice of the prompt.
    trunks: BTreeMap<ChoiceId, Trunk>,
    /// Positions of prompts whose logits are still wanted, by the first choice of the prompt.
    unscored: BTreeMap<ChoiceId, Range<u32>>,
    /// Rows that the model is trusted with: fewer for a while after its cache was full.
    rows_max: u32,
    admission: Admission,
    /// The age of whoever had the last step, when sequences take turns.
    turn: Option<ChoiceId>,
    preemptions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Open,
    /// The model's cache was full with fewer tokens than it should hold: nobody comes in until
    /// somebody has left, else the same would happen again and again.
    UntilOneEnds,
}

/// What occupies a sequence of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Choice(ChoiceId),
    /// By the first choice of its prompt.
    Trunk(ChoiceId),
}

impl Scheduler {
    /// `output_expected` tokens of each choice are kept free when it is admitted.
    pub fn new(capacity: Capacity, output_expected: u32) -> Self {
        Scheduler {
            capacity,
            output_expected,
            kv: Kv::new(capacity.cells, capacity.sequences),
            begun: BTreeMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            trunks: BTreeMap::new(),
            unscored: BTreeMap::new(),
            rows_max: capacity.rows,
            admission: Admission::Open,
            turn: None,
            preemptions: 0,
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
            if job.scored && prompt.len() > 1 {
                let last = u32::try_from(prompt.len() - 1).expect("no longer than the context");
                let first = ChoiceId {
                    request,
                    choice: first,
                };
                self.unscored.insert(first, 0..last);
            }
            let siblings = first..first + job.choices;
            for choice in siblings.clone() {
                let sequence = Sequence::new(Arc::clone(prompt), siblings.clone(), job.output_max);
                self.waiting.insert(ChoiceId { request, choice }, sequence);
            }
        }
    }

    /// Nobody wants the rest of the request.
    pub fn remove(&mut self, request: RequestId) {
        self.begun.remove(&request);
        let all = request.all();
        for choice in keys(&self.waiting, all.clone()) {
            self.waiting.remove(&choice);
        }
        for choice in keys(&self.running, all.clone()) {
            self.release(Holder::Choice(choice));
        }
        for first in keys(&self.unscored, all.clone()) {
            self.unscored.remove(&first);
        }
        for first in keys(&self.trunks, all) {
            self.release(Holder::Trunk(first));
        }
        self.admission = Admission::Open;
    }

    /// The step was computed, and this came of each choice that was sampled.
    pub fn commit(&mut self, step: &Step, next: &[Next]) {
        assert_eq!(
            step.sampled.len(),
            next.len(),
            "one outcome for each choice that was sampled"
        );
        for &(sequence, tokens) in &step.advanced {
            self.kv.extend(sequence, tokens);
        }
        for scored in &step.scored {
            let left = self.unscored.get_mut(&scored.first);
            let left = left.expect("a prompt is scored once");
            left.start = scored.position + 1;
            if left.start == left.end {
                self.unscored.remove(&scored.first);
            }
        }
        self.rows_max = self.capacity.rows.min(self.rows_max * 2);
        for (sampled, &next) in step.sampled.iter().zip(next) {
            self.resume(sampled.choice, next);
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
        self.admission = Admission::UntilOneEnds;
        let mut holders = self.holders();
        let oldest = holders.next();
        if let Some((_, youngest)) = holders.last() {
            self.preempt(youngest);
            return vec![];
        }
        let rows = u32::try_from(step.rows.len()).expect("a step's rows fit a u32");
        if rows > 1 {
            self.rows_max = rows / 2;
            return vec![];
        }
        let lost = match oldest {
            Some((_, Holder::Choice(choice))) => vec![choice],
            Some((_, Holder::Trunk(first))) => {
                keys(&self.waiting, self.trunks[&first].siblings(first))
            }
            None => vec![],
        };
        lost.iter().for_each(|&choice| self.end(choice));
        lost
    }

    /// Choices whose next token is one row away, or only waits to be chosen.
    pub fn decoding(&self) -> usize {
        let all = self.running.values();
        all.filter(|(id, sequence)| self.kv.length(*id) + 1 >= sequence.known())
            .count()
    }

    fn caught_up(&self) -> impl Iterator<Item = ChoiceId> {
        let all = self.running.iter();
        all.filter(|(_, (id, sequence))| self.kv.length(*id) + 1 == sequence.known())
            .map(|(&choice, _)| choice)
    }

    /// Whether all that is known of it is computed, so that it waits for its next token to be chosen.
    fn is_parked(&self, holder: Holder) -> bool {
        match holder {
            Holder::Choice(choice) => self
                .running
                .get(&choice)
                .is_some_and(|(id, sequence)| self.kv.length(*id) == sequence.known()),
            Holder::Trunk(_) => false,
        }
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

    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// A choice has got its last token.
    fn end(&mut self, choice: ChoiceId) {
        let sequence = match self.running.remove(&choice) {
            Some((id, sequence)) => {
                self.kv.forget(id);
                sequence
            }
            None => self
                .waiting
                .remove(&choice)
                .expect("only what is known ends"),
        };
        self.admission = Admission::Open;
        // A trunk is there for those that wait.
        let siblings = choice.siblings(&sequence);
        if self.trunks.contains_key(siblings.start())
            && self.waiting.range(siblings.clone()).next().is_none()
        {
            self.release(Holder::Trunk(*siblings.start()));
        }
        if self.running.range(choice.request.all()).next().is_none()
            && self.waiting.range(choice.request.all()).next().is_none()
        {
            self.remove(choice.request);
        }
    }

    /// Takes the cells away; a choice will be computed again.
    fn preempt(&mut self, holder: Holder) {
        self.preemptions += 1;
        if let Some((choice, sequence)) = self.release(holder) {
            self.waiting.insert(choice, sequence);
        }
    }

    fn release(&mut self, holder: Holder) -> Option<(ChoiceId, Sequence)> {
        match holder {
            Holder::Choice(choice) => {
                let (id, sequence) = self.running.remove(&choice).expect("a holder is running");
                self.kv.forget(id);
                Some((choice, sequence))
            }
            Holder::Trunk(first) => {
                let trunk = self.trunks.remove(&first).expect("a holder has its trunk");
                self.kv.forget(trunk.id);
                None
            }
        }
    }

    /// Whoever holds cells that nobody else does, or may come to; oldest first. A trunk is as old as
    /// the oldest choice that waits for it, and counts only while it has cells of its own.
    fn holders(&self) -> impl DoubleEndedIterator<Item = (ChoiceId, Holder)> + use<> {
        let choices = self
            .running
            .keys()
            .map(|&choice| (choice, Holder::Choice(choice)));
        let trunks = self.trunks.iter().filter_map(|(&first, trunk)| {
            let (&age, _) = self.waiting.range(trunk.siblings(first)).next()?;
            let own = self.kv.own_cells(trunk.id) > 0 || self.kv.length(trunk.id) == 0;
            own.then_some((age, Holder::Trunk(first)))
        });
        let mut all: Vec<_> = choices.chain(trunks).collect();
        all.sort_by_key(|&(age, _)| age);
        all.into_iter()
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

fn keys<V>(
    map: &BTreeMap<ChoiceId, V>,
    range: std::ops::RangeInclusive<ChoiceId>,
) -> Vec<ChoiceId> {
    map.range(range).map(|(&choice, _)| choice).collect()
}

#[cfg(test)]
mod tests;

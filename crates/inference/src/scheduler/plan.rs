//! Builds a step: first the next token of every decoding choice, then prompts, then draft tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use weir_engine::Token;

use crate::model::{BatchToken, Batching, SequenceId};
use crate::scheduler::admit::Reserve;
use crate::scheduler::{Admission, CacheOp, ChoiceId, RequestId, Scheduler};

/// Kernels compute tokens in groups of four: one token left over costs as much as four.
pub(super) const ROWS_ALIGNED: u32 = 4;

/// The token budget of a step, so that the step ends in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepBudget {
    /// Tokens in all, unless `prompts` allows more.
    pub rows: u32,
    /// Decode tokens if all accounts are of the same class. They may be more, up to `longest`, if nothing else waits.
    pub streams: u32,
    /// Decode tokens of a step for which nothing else waits.
    pub longest: u32,
    /// Prompt tokens that the step may have in any case, even beyond `rows`.
    pub prompts: u32,
    /// The cost of one more token, as a fraction of a step's fixed cost. `None` turns speculative decoding off.
    pub row_cost: Option<f32>,
}

/// A planned step: the model's next work.
#[derive(Debug, Default)]
pub struct Step {
    /// Operations on the cache, to be done first and in this order, even if `rows` is empty.
    pub cache: Vec<CacheOp>,
    pub rows: Vec<BatchToken>,
    /// The tokens of a background chunk that begins with this step; empty if none does.
    pub aside: Vec<BatchToken>,
    pub sampled: Vec<Sampled>,
    pub scored: Vec<Scored>,
    /// The range of `rows` that has a choice's draft tokens. The logits after a draft token are used only if that token
    /// was chosen.
    pub drafted: BTreeMap<ChoiceId, Range<usize>>,
    /// How many of `rows` are prompt tokens, or tokens that were lost by preemption: neither decode nor draft tokens.
    pub prompt_rows: u32,
    /// The requests that have tokens in the step.
    pub requests: BTreeSet<RequestId>,
    /// How many more tokens of each choice the cache holds after the step, without draft tokens.
    pub(super) advanced: Vec<(ChoiceId, u32)>,
}

/// A token of the batch whose logits give the next token of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    pub row: usize,
    pub choice: ChoiceId,
    /// Tokens of the choice's prompt that were in the cache when the first of the prompt's choices was admitted.
    pub cached: u32,
}

/// A token of the batch whose logits score the next token of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scored {
    pub row: usize,
    /// The first choice of the prompt.
    pub first: ChoiceId,
    /// The token's position in the prompt.
    pub position: u32,
}

impl Scheduler {
    /// Plans the next step. `quota` says how many tokens of a request may be sampled now. A request with a quota of 0
    /// is blocked: nothing of it is computed, and its cells are the first to be taken away.
    pub fn plan(&mut self, budget: StepBudget, quota: impl Fn(RequestId) -> u32) -> Step {
        let mut builder = StepBuilder::new(self.rows_max, self.capacity.outputs, &quota);
        if self.admission == Admission::Open {
            self.make_fair(&builder);
        }
        loop {
            let preemptions = self.preemptions;
            match self.capacity.batching {
                Batching::Together => self.fill(&mut builder, budget),
                Batching::OneSequence => self.fill_single_sequence(&mut builder),
            }
            if !builder.step.rows.is_empty() || self.aside().is_some() {
                break;
            }
            // The choice whose turn it was may have been preempted itself: then it is another's turn.
            if self.preemptions > preemptions {
                continue;
            }
            // Nothing to compute: either no choice is ready, or the cells are held by choices that aren't.
            let begun = self.begin_next(&builder, Reserve::Spent);
            if begun.is_none() && !self.make_way(&builder) {
                break;
            }
        }
        let mut step = builder.step;
        step.cache = self.kv.take_ops();
        step
    }

    fn fill(&mut self, builder: &mut StepBuilder<'_>, budget: StepBudget) {
        self.decode(builder, budget);
        let left = budget.rows.saturating_sub(builder.rows());
        builder.open_prompts(left.max(budget.prompts).max(1));
        self.prefill(builder);
        self.speculate(builder, budget);
    }

    /// Adds the next token of each choice that has caught up.
    fn decode(&mut self, builder: &mut StepBuilder<'_>, budget: StepBudget) {
        let ready = self.caught_up();
        let ready = ready.filter(|choice| !builder.is_blocked(choice.request));
        for choice in self.share_rows(ready.collect(), budget) {
            if !builder.may_sample(choice.request) {
                continue;
            }
            while self.running.contains_key(&choice) && !self.make_room(builder.rows() + 1) {
                self.preempt_for(builder, choice);
            }
            // The choice may have been preempted itself.
            if self.running.contains_key(&choice) {
                self.place(builder, choice, 1);
            }
        }
    }

    /// Adds prompts, and tokens that were lost by preemption, in chunks: account by account, running choices before
    /// waiting ones. If the next waiting choice doesn't fit, no other one may take its cells.
    fn prefill(&mut self, builder: &mut StepBuilder<'_>) {
        let mut admits = self.admission == Admission::Open;
        for account in self.in_turn(builder.prompt_room) {
            for choice in self.running_prompts(&account) {
                // A safeguard: nothing in this loop preempts a running choice.
                if self.running.contains_key(&choice) && !builder.is_blocked(choice.request) {
                    self.place_prompt(builder, choice);
                }
            }
            while admits
                && builder.prompt_room > 0
                && let Some((choice, source)) = self.next_of(&account, builder)
            {
                admits = self.begin(choice, source, Reserve::Kept).is_some();
                if admits {
                    self.place_prompt(builder, choice);
                }
            }
        }
    }

    pub(super) fn place_prompt(&mut self, builder: &mut StepBuilder<'_>, choice: ChoiceId) {
        if self.place_aside(builder, choice) {
            return;
        }
        let before = builder.rows();
        self.place(builder, choice, builder.prompt_room);
        let placed = builder.rows() - before;
        builder.prompt_room -= placed;
        builder.step.prompt_rows += placed;
    }

    /// Adds up to `most` tokens of a choice that aren't in the cache yet to the step.
    pub(super) fn place(&mut self, builder: &mut StepBuilder<'_>, choice: ChoiceId, most: u32) {
        self.snapshot(choice);
        let (id, sequence) = &self.running[&choice];
        let (id, from) = (*id, self.kv.length(*id));
        let missing = sequence.known() - from;
        let pause = self.pause(choice, from);
        let most = pause.map_or(most, |place| most.min(place - from));
        let rows = builder.rows();
        let room = most.min(builder.rows_max - rows).min(missing);
        self.make_room(rows + room);
        let room = room.min(self.kv.free_cells() - rows);
        let sequence = &self.running[&choice].1;
        let first = *choice.siblings(sequence).start();
        let prompt = &self.prompts[&first];
        let unscored = prompt.unscored.clone();
        // One output is left for the last token, which is sampled.
        let complete = room == missing
            && builder.may_sample(choice.request)
            && overlap(from, missing, &unscored) < builder.outputs_left;
        let count = if complete {
            missing
        } else {
            builder.scorable(from, room.min(missing - 1), &unscored)
        };
        let tokens = sequence.tokens.from(from).take(count as usize);
        builder.push(choice, id, from, tokens);
        builder.score(first, from, count, &unscored);
        if complete {
            builder.sample(choice, prompt.cached.unwrap_or(0));
        }
    }

    /// Frees cells for a choice that needs one: preempts a blocked choice, else the youngest, which may be the choice
    /// itself.
    fn preempt_for(&mut self, builder: &StepBuilder<'_>, choice: ChoiceId) {
        let victim = self.victim(builder, |other| {
            other == choice || !builder.placed.contains(&other)
        });
        self.preempt(victim.unwrap_or(choice));
    }

    /// Frees cells so that the oldest choice that is ready can be computed. `false` if none is ready, or if it has all
    /// cells but those of older parked choices.
    fn make_way(&mut self, builder: &StepBuilder<'_>) -> bool {
        let waiting = self.oldest_ready(builder);
        let mut running = self.running.keys().copied();
        let running =
            running.find(|&choice| !builder.is_blocked(choice.request) && !self.is_parked(choice));
        let (age, keep) = match (waiting, running) {
            (None, None) => return false,
            (Some(waiting), Some(choice)) if waiting < choice => (waiting, None),
            (Some(waiting), None) => (waiting, None),
            (_, Some(choice)) => (choice, Some(choice)),
        };
        let victim = self.victim(builder, |other| {
            let goes_first = other < age && self.is_parked(other);
            Some(other) != keep && (!goes_first || builder.is_blocked(other.request))
        });
        let Some(victim) = victim else {
            return false;
        };
        self.preempt(victim);
        true
    }

    fn victim(
        &self,
        builder: &StepBuilder<'_>,
        may: impl Fn(ChoiceId) -> bool,
    ) -> Option<ChoiceId> {
        let running = || {
            self.running
                .keys()
                .rev()
                .copied()
                .filter(|&choice| may(choice))
        };
        let blocked = running().find(|choice| builder.is_blocked(choice.request));
        blocked.or_else(|| running().next())
    }
}

/// A step that is being built.
pub(super) struct StepBuilder<'a> {
    pub(super) step: Step,
    placed: HashSet<ChoiceId>,
    rows_max: u32,
    pub(super) outputs_left: u32,
    /// The number of prompt tokens that may still be added.
    pub(super) prompt_room: u32,
    quota: &'a dyn Fn(RequestId) -> u32,
    sampled: HashMap<RequestId, u32>,
}

impl<'a> StepBuilder<'a> {
    fn new(rows_max: u32, outputs_max: u32, quota: &'a dyn Fn(RequestId) -> u32) -> Self {
        StepBuilder {
            step: Step::default(),
            placed: HashSet::new(),
            rows_max,
            outputs_left: outputs_max,
            prompt_room: 0,
            quota,
            sampled: HashMap::new(),
        }
    }

    pub(super) fn is_blocked(&self, request: RequestId) -> bool {
        (self.quota)(request) == 0
    }

    pub(super) fn rows_max(&self) -> u32 {
        self.rows_max
    }

    pub(super) fn rows(&self) -> u32 {
        u32::try_from(self.step.rows.len()).expect("no more than the model takes")
    }

    fn may_sample(&self, request: RequestId) -> bool {
        self.outputs_left > 0 && self.rows() < self.rows_max && self.may_draft(request)
    }

    /// Whether the request's quota allows one more token.
    pub(super) fn may_draft(&self, request: RequestId) -> bool {
        let sampled = self.sampled.get(&request).copied().unwrap_or(0);
        sampled < (self.quota)(request)
    }

    /// Counts one more token of the request that the step may yield.
    pub(super) fn count_sampled(&mut self, request: RequestId) {
        *self.sampled.entry(request).or_insert(0) += 1;
    }

    /// Begins the step's prompts, after its decode tokens: sets how many prompt tokens it may have, which is `budget`
    /// rounded up to full groups of [`ROWS_ALIGNED`].
    fn open_prompts(&mut self, budget: u32) {
        let rows = self.rows();
        let aligned = rows
            .saturating_add(budget)
            .checked_next_multiple_of(ROWS_ALIGNED);
        self.prompt_room = aligned
            .map_or(self.rows_max, |rows| rows.min(self.rows_max))
            .saturating_sub(rows);
    }

    fn push(
        &mut self,
        choice: ChoiceId,
        id: SequenceId,
        from: u32,
        tokens: impl Iterator<Item = Token>,
    ) {
        let before = self.rows();
        let rows = (from..).zip(tokens);
        self.step
            .rows
            .extend(rows.map(|(position, token)| BatchToken {
                token,
                position,
                sequence: id,
                output: false,
            }));
        let count = self.rows() - before;
        if count > 0 {
            self.placed.insert(choice);
            self.step.requests.insert(choice.request);
            self.step.advanced.push((choice, count));
        }
    }

    /// How many of `count` tokens from position `from` on can be added so that the outputs suffice for those to be
    /// scored.
    fn scorable(&self, from: u32, count: u32, unscored: &Range<u32>) -> u32 {
        if overlap(from, count, unscored) <= self.outputs_left {
            return count;
        }
        unscored.start.max(from) + self.outputs_left - from
    }

    /// Marks outputs among the step's last `count` tokens, which are a prompt's from position `from` on.
    fn score(&mut self, first: ChoiceId, from: u32, count: u32, unscored: &Range<u32>) {
        let begin = self.step.rows.len() - count as usize;
        for position in from.max(unscored.start)..(from + count).min(unscored.end) {
            let row = begin + (position - from) as usize;
            self.step.rows[row].output = true;
            self.step.scored.push(Scored {
                row,
                first,
                position,
            });
            self.outputs_left -= 1;
        }
    }

    /// Marks the step's last token, the last known token of a choice, to be sampled.
    fn sample(&mut self, choice: ChoiceId, cached: u32) {
        let row = self.step.rows.len() - 1;
        self.step.rows[row].output = true;
        self.step.sampled.push(Sampled {
            row,
            choice,
            cached,
        });
        self.outputs_left -= 1;
        self.count_sampled(choice.request);
    }
}

/// How many of `count` positions from `from` on are in `range`.
fn overlap(from: u32, count: u32, range: &Range<u32>) -> u32 {
    (from + count)
        .min(range.end)
        .saturating_sub(from.max(range.start))
}

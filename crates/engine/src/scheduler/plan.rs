//! A step: first the next token of every choice that has caught up, then prompts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::Token;
use crate::model::{Batching, Row, SequenceId};
use crate::scheduler::{CacheOp, ChoiceId, Holder, RequestId, Scheduler};

/// Kernels compute rows in fours: one row left over costs as much as four.
const ROWS_ALIGNED: u32 = 4;

/// What the model is to do next.
#[derive(Debug, Default)]
pub struct Step {
    /// First this, in this order, also when there are no rows.
    pub cache: Vec<CacheOp>,
    pub rows: Vec<Row>,
    pub sampled: Vec<Sampled>,
    pub scored: Vec<Scored>,
    /// How many of the rows are not the one next token of a choice.
    pub prompt_rows: u32,
    /// Of which it computes something.
    pub requests: BTreeSet<RequestId>,
    /// What the cache holds more when the rows are computed.
    pub(super) advanced: Vec<(SequenceId, u32)>,
}

/// A row whose logits give the next token of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    pub row: usize,
    pub choice: ChoiceId,
}

/// A row whose logits tell what the model thought of the next token of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scored {
    pub row: usize,
    /// The first choice of the prompt.
    pub first: ChoiceId,
    /// The row's place in the prompt.
    pub position: u32,
}

impl Scheduler {
    /// The next step, with about `budget` prompt tokens. `quota` says how many tokens of a request may
    /// be sampled now; with 0 nothing of it is computed, and its cells are the first to go.
    pub fn plan(&mut self, budget: u32, quota: impl Fn(RequestId) -> u32) -> Step {
        let mut draft = Draft::new(self.rows_max, self.capacity.outputs, &quota);
        loop {
            match self.capacity.batching {
                Batching::Together => self.fill(&mut draft, budget.max(1)),
                Batching::OneSequence => self.fill_alone(&mut draft),
            }
            if !draft.step.rows.is_empty() {
                break;
            }
            // Nothing to compute: either nobody is ready, or the cells are held by those that aren't.
            if !self.admit_tightly(&draft) && !self.make_way(&draft) {
                break;
            }
        }
        let mut step = draft.step;
        step.cache = self.kv.take_ops();
        step
    }

    fn fill(&mut self, draft: &mut Draft<'_>, budget: u32) {
        self.decode(draft);
        draft.open_prompts(budget);
        self.prefill(draft);
        self.admit(draft);
    }

    /// One row for each choice that has caught up.
    fn decode(&mut self, draft: &mut Draft<'_>) {
        for choice in self.caught_up().collect::<Vec<_>>() {
            if !draft.may_sample(choice.request) {
                continue;
            }
            while self.running.contains_key(&choice) && self.kv.free_cells() == draft.rows() {
                self.preempt_for(draft, choice);
            }
            // Its own cells may have been the ones to go.
            if self.running.contains_key(&choice) {
                self.place(draft, Holder::Choice(choice), 1);
            }
        }
    }

    /// Prompts, and what was generated before cells were taken away, in chunks.
    fn prefill(&self, draft: &mut Draft<'_>) {
        for (_, holder) in self.holders() {
            let ready = !draft.is_blocked(holder.request()) && !self.is_parked(holder);
            if ready && !draft.placed.contains(&holder) {
                self.place_prompt(draft, holder);
            }
        }
    }

    pub(super) fn place_prompt(&self, draft: &mut Draft<'_>, holder: Holder) {
        let before = draft.rows();
        self.place(draft, holder, draft.prompt_room);
        let placed = draft.rows() - before;
        draft.prompt_room -= placed;
        draft.step.prompt_rows += placed;
    }

    /// Puts up to `most` tokens of a sequence that are not in the cache yet into the step.
    pub(super) fn place(&self, draft: &mut Draft<'_>, holder: Holder, most: u32) {
        let rows = draft.rows();
        let room = most
            .min(draft.rows_max - rows)
            .min(self.kv.free_cells() - rows);
        match holder {
            Holder::Trunk(first) => {
                let trunk = &self.trunks[&first];
                let from = self.kv.length(trunk.id);
                let unscored = self.unscored(first);
                let count = room.min(trunk.length() - from);
                let count = draft.scorable(from, count, &unscored);
                let tokens = trunk.tokens(from).take(count as usize);
                draft.push(holder, trunk.id, from, tokens);
                draft.score(first, from, count, &unscored);
            }
            Holder::Choice(choice) => {
                let (id, sequence) = &self.running[&choice];
                let from = self.kv.length(*id);
                let missing = sequence.known() - from;
                let first = *choice.siblings(sequence).start();
                let unscored = self.unscored(first);
                // One output is left for the last row, which is sampled.
                let complete = room >= missing
                    && draft.may_sample(choice.request)
                    && overlap(from, missing, &unscored) < draft.outputs_left;
                let count = if complete {
                    missing
                } else {
                    draft.scorable(from, room.min(missing - 1), &unscored)
                };
                let tokens = sequence.tokens(from).take(count as usize);
                draft.push(holder, *id, from, tokens);
                draft.score(first, from, count, &unscored);
                if complete {
                    draft.sample(choice);
                }
            }
        }
    }

    fn unscored(&self, first: ChoiceId) -> Range<u32> {
        self.unscored.get(&first).cloned().unwrap_or_default()
    }

    /// Frees cells for a choice that needs one: of whoever can't go on, else of the youngest, which
    /// may be itself.
    fn preempt_for(&mut self, draft: &Draft<'_>, choice: ChoiceId) {
        let this = Holder::Choice(choice);
        let victim = self.victim(draft, |_, holder| {
            holder == this || !draft.placed.contains(&holder)
        });
        self.preempt(victim.unwrap_or(this));
    }

    /// Frees cells so that the oldest that is ready can be computed. `false` if none is, or it has all
    /// but those of older ones that only wait for their next token to be chosen.
    fn make_way(&mut self, draft: &Draft<'_>) -> bool {
        let waiting = self.oldest_ready(draft);
        let holder = self
            .holders()
            .find(|&(_, holder)| !draft.is_blocked(holder.request()) && !self.is_parked(holder));
        let (age, keep) = match (waiting, holder) {
            (None, None) => return false,
            // A trunk is as old as the choice that waits for it.
            (Some(waiting), Some((age, _))) if waiting < age => (waiting, None),
            (Some(waiting), None) => (waiting, None),
            (_, Some((age, holder))) => (age, Some(holder)),
        };
        let victim = self.victim(draft, |other, holder| {
            let goes_first = other < age && self.is_parked(holder);
            Some(holder) != keep && (!goes_first || draft.is_blocked(holder.request()))
        });
        let Some(victim) = victim else {
            return false;
        };
        self.preempt(victim);
        true
    }

    fn victim(&self, draft: &Draft<'_>, may: impl Fn(ChoiceId, Holder) -> bool) -> Option<Holder> {
        let holders: Vec<_> = self
            .holders()
            .filter(|&(age, holder)| may(age, holder))
            .map(|(_, holder)| holder)
            .collect();
        let blocked = holders
            .iter()
            .rev()
            .find(|holder| draft.is_blocked(holder.request()));
        blocked.or(holders.last()).copied()
    }
}

/// A step that is being put together.
pub(super) struct Draft<'a> {
    pub(super) step: Step,
    placed: HashSet<Holder>,
    rows_max: u32,
    outputs_left: u32,
    /// Prompt tokens that may still come.
    pub(super) prompt_room: u32,
    quota: &'a dyn Fn(RequestId) -> u32,
    sampled: HashMap<RequestId, u32>,
}

impl<'a> Draft<'a> {
    fn new(rows_max: u32, outputs_max: u32, quota: &'a dyn Fn(RequestId) -> u32) -> Self {
        Draft {
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

    fn rows(&self) -> u32 {
        u32::try_from(self.step.rows.len()).expect("no more than the model takes")
    }

    fn may_sample(&self, request: RequestId) -> bool {
        let sampled = self.sampled.get(&request).copied().unwrap_or(0);
        self.outputs_left > 0 && self.rows() < self.rows_max && sampled < (self.quota)(request)
    }

    /// All rows up to here are next tokens; from here on they are prompts.
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
        holder: Holder,
        id: SequenceId,
        from: u32,
        tokens: impl Iterator<Item = Token>,
    ) {
        let before = self.rows();
        let rows = (from..).zip(tokens);
        self.step.rows.extend(rows.map(|(position, token)| Row {
            token,
            position,
            sequence: id,
            output: false,
        }));
        let count = self.rows() - before;
        if count > 0 {
            self.placed.insert(holder);
            self.step.requests.insert(holder.request());
            self.step.advanced.push((id, count));
        }
    }

    /// How many of `count` rows from `from` on leave outputs for all that are to be scored.
    fn scorable(&self, from: u32, count: u32, unscored: &Range<u32>) -> u32 {
        if overlap(from, count, unscored) <= self.outputs_left {
            return count;
        }
        unscored.start.max(from) + self.outputs_left - from
    }

    /// The last `count` rows are a prompt's from position `from` on.
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

    /// The last row is the last token that is known of this choice.
    fn sample(&mut self, choice: ChoiceId) {
        let row = self.step.rows.len() - 1;
        self.step.rows[row].output = true;
        self.step.sampled.push(Sampled { row, choice });
        self.outputs_left -= 1;
        *self.sampled.entry(choice.request).or_insert(0) += 1;
    }
}

/// How many of `count` positions from `from` on are in `range`.
fn overlap(from: u32, count: u32, range: &Range<u32>) -> u32 {
    (from + count)
        .min(range.end)
        .saturating_sub(from.max(range.start))
}

impl Holder {
    pub(super) fn request(self) -> RequestId {
        match self {
            Holder::Choice(choice) | Holder::Trunk(choice) => choice.request,
        }
    }
}

//! The step: plan → decode → sample → commit → send. No thread, no waiting, and the clock is an argument.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use weir_engine::event::EventSender;
use weir_engine::{EngineError, FinishReason};

use crate::local::generation::{Generation, Outcome, Sweep, Tools};
use crate::local::inbox::QueueStats;
use crate::local::row_cost::RowCost;
use crate::local::step_budget::{self, BudgetPlanner, Measured};
use crate::local::{AccountMasks, CacheSharing, Options, Speculation};
use crate::model::{Aside, DecodeError, Model, Tokenizer};
use crate::prepared::PreparedRequest;
use crate::sampler::Scratch;
use crate::scheduler::{
    CacheOp, ChoiceId, Chosen, Next, RequestId, Sampled, Scheduler, Step, StepBudget,
};

/// A monotonic clock: the time since some fixed moment.
pub type Monotonic = Box<dyn FnMut() -> Duration + Send>;

/// The outcome of [`Core::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The model was asked to compute something.
    Stepped,
    /// All generations wait for their reader, their allowance or their token masks.
    Blocked,
    /// There are no generations.
    Idle,
    /// The model can't compute any more: [`Core::damage`] says why. The core may only be told to fail the generations
    /// that are left.
    Damaged,
}

/// Everything of a [`LocalEngine`](crate::local::LocalEngine) but its thread.
pub struct Core<M> {
    model: M,
    tokenizer: Arc<dyn Tokenizer>,
    scheduler: Scheduler,
    generations: BTreeMap<RequestId, Generation>,
    budgets: BudgetPlanner,
    row_cost: RowCost,
    /// How long the background chunk under way has been computed for.
    aside_took: Duration,
    /// Whether background prefill ran after the last step: streams have waited for it.
    was_aside: bool,
    scratch: Scratch,
    masks: Box<dyn AccountMasks>,
    clock: Monotonic,
    inter_token_target: Duration,
    write_timeout: Duration,
    output_expected: u32,
    prefix_cache: CacheSharing,
    speculation: Speculation,
    damage: Option<String>,
    next: u64,
}

impl<M: Model> Core<M> {
    pub fn new(
        model: M,
        options: &Options,
        masks: Box<dyn AccountMasks>,
        clock: Monotonic,
    ) -> Self {
        let (capacity, tile_rows) = (model.capacity(), model.tile_rows());
        let (ttl_tokens, aside) = (model.ttl_tokens(), model.aside());
        Core {
            tokenizer: model.tokenizer(),
            model,
            scheduler: Scheduler::new(capacity, options.output_expected, ttl_tokens)
                .with_aside(aside),
            generations: BTreeMap::new(),
            budgets: BudgetPlanner::new(
                options.inter_token_target,
                capacity.rows,
                options.prompt_tokens_min,
                tile_rows,
            ),
            row_cost: RowCost::default(),
            inter_token_target: options.inter_token_target,
            aside_took: Duration::ZERO,
            was_aside: false,
            scratch: Scratch::default(),
            masks,
            clock,
            write_timeout: options.write_timeout,
            output_expected: options.output_expected,
            prefix_cache: options.prefix_cache,
            speculation: options.speculation,
            damage: None,
            next: 0,
        }
    }

    /// Accepts a request, whose generation ends in exactly one last event. Its prompts and `output_max` fit the cache;
    /// the channel has room for two events of each choice and two more.
    pub fn start(&mut self, prepared: PreparedRequest, sender: EventSender) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        let salt = self.prefix_cache.cache_salt(&prepared.account);
        let generation = Generation::new(prepared, sender);
        self.scheduler
            .enqueue(request, &generation.job(salt, self.speculation));
        self.generations.insert(request, generation);
        request
    }

    pub fn step(&mut self) -> Progress {
        let begin = (self.clock)();
        self.sweep(begin);
        self.resume();
        let streams = u32::try_from(self.scheduler.decoding()).expect("sequences fit a u32");
        let generations = &self.generations;
        let quota = |request: RequestId| generations.get(&request).map_or(0, Generation::quota);
        let was_aside = std::mem::take(&mut self.was_aside);
        let several = self.scheduler.accounts() > 1;
        let budget = if was_aside || self.scheduler.awaits_aside(quota) {
            // Nothing is drafted: a draft token takes as long as a token of the prompt that waits, and may be wrong.
            self.budgets.budget_beside_background(streams, several)
        } else {
            StepBudget {
                row_cost: (self.speculation == Speculation::Ngram).then(|| self.row_cost.share()),
                ..self.budgets.budget(streams, several)
            }
        };
        let step = self.scheduler.plan(budget, quota);
        self.change_cache(step.cache.iter().copied());
        if !step.rows.is_empty() {
            self.decode(&step, begin, streams > 0 || several);
        } else if self.scheduler.aside().is_none() {
            return if self.generations.is_empty() {
                Progress::Idle
            } else {
                Progress::Blocked
            };
        }
        self.go_aside(&step, begin, streams);
        if self.damage.is_some() {
            return Progress::Damaged;
        }
        // The cells of ended choices are freed at once, also when no step follows.
        let freed = self.scheduler.take_cache_ops();
        self.change_cache(freed.into_iter());
        Progress::Stepped
    }

    fn decode(&mut self, step: &Step, begin: Duration, awaited: bool) {
        let generations = &self.generations;
        let wanted = || step.requests.iter().any(|id| generations[id].is_wanted());
        match self.model.decode_while(&step.rows, &wanted) {
            Ok(()) => self.computed(step),
            Err(DecodeError::CacheFull) => self.cache_full(step),
            // The step's requests were all cancelled; the next step's sweep drops them.
            Err(DecodeError::Unwanted) => return,
            Err(DecodeError::Fault(why)) => self.fault(step, why),
            Err(DecodeError::Lost(why)) => {
                self.fault(step, why);
                self.scheduler.lost();
            }
            Err(DecodeError::Damaged(why)) => {
                self.damage = Some(why);
                return;
            }
        }
        let took = (self.clock)().saturating_sub(begin);
        tracing::trace!(
            rows = step.rows.len(),
            prompt_rows = step.prompt_rows,
            sampled = step.sampled.len(),
            cells = self.scheduler.kv().used_cells(),
            ?took,
            "step"
        );
        if step.prompt_rows == 0 {
            self.row_cost.measure(step.rows.len(), took);
        }
        self.budgets.measure(Measured {
            took,
            rows: u32::try_from(step.rows.len()).expect("a step's rows fit a u32"),
            prompt_rows: step.prompt_rows,
            awaited,
        });
    }

    /// Continues background prefill, if any is under way, after a step that began at `begin`, or after none.
    fn go_aside(&mut self, step: &Step, begin: Duration, streams: u32) {
        if self.damage.is_some() || self.scheduler.aside().is_none() {
            return;
        }
        if !step.aside.is_empty() {
            self.aside_took = Duration::ZERO;
            if let Err(error) = self.model.begin_aside(&step.aside) {
                return self.refuse_aside(&error);
            }
        }
        self.was_aside = true;
        let now = (self.clock)();
        let gone = now.saturating_sub(begin);
        let turn = step_budget::background_time(self.inter_token_target, gone, streams > 0);
        let went = self.model.go_aside(turn);
        let took = (self.clock)().saturating_sub(now);
        self.aside_took += took;
        tracing::trace!(?turn, ?took, ?went, "aside");
        match went {
            Ok(Aside::Paused) => {}
            Ok(Aside::Done) => {
                let rows = self.scheduler.commit_aside();
                self.budgets.measure(Measured {
                    took: self.aside_took,
                    rows,
                    prompt_rows: rows,
                    awaited: false,
                });
            }
            Err(error) => self.refuse_aside(&error),
        }
    }

    /// Handles a failed background chunk. The cache is as before, so the prompt continues in steps.
    fn refuse_aside(&mut self, error: &DecodeError) {
        self.scheduler.refuse_aside();
        match error {
            DecodeError::CacheFull | DecodeError::Unwanted => {
                tracing::debug!("a prompt goes on in steps: {error}");
            }
            DecodeError::Fault(_) | DecodeError::Lost(_) => {
                tracing::error!("a prompt goes on in steps: {error}");
            }
            DecodeError::Damaged(why) => self.damage = Some(why.clone()),
        }
    }

    /// The requests that wait for their first step.
    pub fn load(&self) -> QueueStats {
        let waiting = self
            .scheduler
            .not_begun()
            .map(|request| &self.generations[&request]);
        let (mut requests, mut tokens) = (0, 0);
        let mut of_accounts: HashMap<Arc<str>, usize> = HashMap::new();
        for next in waiting {
            requests += 1;
            tokens += next.tokens_expected(self.output_expected);
            *of_accounts.entry(Arc::clone(next.account())).or_default() += 1;
        }
        QueueStats {
            requests,
            of_accounts,
            wait: self.budgets.estimate(tokens),
            drafted: self.scheduler.drafted(),
        }
    }

    /// Fails all generations. Looks at nothing else, so that it can be called after a panic; nothing else may be called
    /// after it.
    pub(crate) fn fail_all(&mut self, error: &EngineError) {
        for generation in std::mem::take(&mut self.generations).into_values() {
            generation.fail(error.clone());
        }
    }

    /// Why the model can't compute any more, if so.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    pub fn model(&self) -> &M {
        &self.model
    }

    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Drops generations that are cancelled or over.
    fn sweep(&mut self, now: Duration) {
        let mut gone = Vec::new();
        for (&request, generation) in &mut self.generations {
            match generation.sweep(now, self.write_timeout) {
                Sweep::GoesOn => {}
                Sweep::Over => gone.push(request),
            }
        }
        gone.into_iter().for_each(|request| self.forget(request));
    }

    /// Continues choices that waited for their token masks.
    fn resume(&mut self) {
        let mut over = Vec::new();
        for (&request, generation) in &mut self.generations {
            let mut tools = Tools {
                scratch: &mut self.scratch,
                tokenizer: &*self.tokenizer,
                masks: &mut *self.masks,
            };
            for (choice, outcome) in generation.resume(&mut tools) {
                self.scheduler
                    .resume(ChoiceId { request, choice }, outcome.next());
                if outcome == Outcome::Over {
                    over.push(request);
                }
            }
        }
        over.into_iter().for_each(|request| self.forget(request));
    }

    fn change_cache(&mut self, ops: impl Iterator<Item = CacheOp>) {
        for op in ops {
            match op {
                CacheOp::Fork { from, to, length } => self.model.fork(from, to, length),
                CacheOp::Truncate { sequence, length } => self.model.truncate(sequence, length),
                CacheOp::Forget(sequence) => self.model.forget(sequence),
            }
        }
    }

    fn computed(&mut self, step: &Step) {
        for scored in &step.scored {
            let ChoiceId { request, choice } = scored.first;
            let generation = self
                .generations
                .get_mut(&request)
                .expect("what is scheduled is known");
            generation.score_prompt(
                choice,
                scored.position,
                self.model.logits(scored.row),
                &mut self.scratch,
                &*self.tokenizer,
            );
        }
        let mut chosen = Vec::with_capacity(step.sampled.len());
        let mut over = Vec::new();
        for sampled in &step.sampled {
            let (accepted, outcome) = self.sample(step, sampled);
            let next = outcome.next();
            chosen.push(Chosen { accepted, next });
            if outcome == Outcome::Over {
                over.push(sampled.choice.request);
            }
        }
        self.scheduler.commit(step, &chosen);
        over.into_iter().for_each(|request| self.forget(request));
    }

    /// Samples the next token of a choice and, as long as it is the one that was drafted, the one after it. Each is
    /// sampled as if nothing had been drafted. Returns the number of accepted draft tokens, and the last outcome.
    fn sample(&mut self, step: &Step, sampled: &Sampled) -> (u32, Outcome) {
        let ChoiceId { request, choice } = sampled.choice;
        let generation = self
            .generations
            .get_mut(&request)
            .expect("what is scheduled is known");
        let mut tools = Tools {
            scratch: &mut self.scratch,
            tokenizer: &*self.tokenizer,
            masks: &mut *self.masks,
        };
        generation.count_prompt(choice, sampled.cached, &*self.tokenizer);
        let mut outcome = generation.sample(choice, self.model.logits(sampled.row), &mut tools);
        let mut accepted = 0;
        for row in step.drafted.get(&sampled.choice).cloned().unwrap_or(0..0) {
            if outcome != Outcome::Token(step.rows[row].token) {
                break;
            }
            accepted += 1;
            outcome = generation.sample(choice, self.model.logits(row), &mut tools);
        }
        (accepted, outcome)
    }

    fn cache_full(&mut self, step: &Step) {
        for ChoiceId { request, choice } in self.scheduler.cache_full(step) {
            tracing::warn!(
                choice,
                "the cache is too small for a sequence that has it alone"
            );
            let generation = self
                .generations
                .get_mut(&request)
                .expect("what is scheduled is known");
            if generation.finish(choice, FinishReason::Length) == Outcome::Over {
                self.forget(request);
            }
        }
    }

    /// Fails the requests in the step. The others continue.
    fn fault(&mut self, step: &Step, why: String) {
        let error = EngineError::Fault(why);
        tracing::error!(
            requests = step.requests.len(),
            rows = step.rows.len(),
            "a step failed: {error}"
        );
        for &request in &step.requests {
            self.scheduler.discard(request);
            if let Some(generation) = self.generations.remove(&request) {
                generation.fail(error.clone());
            }
        }
    }

    fn forget(&mut self, request: RequestId) {
        self.scheduler.remove(request);
        self.generations.remove(&request);
    }
}

impl Outcome {
    fn next(self) -> Next {
        match self {
            Outcome::Token(token) => Next::Token(token),
            Outcome::Parked => Next::Parked,
            Outcome::Ended | Outcome::Over => Next::Ended,
        }
    }
}

impl<M> fmt::Debug for Core<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("generations", &self.generations.len())
            .finish_non_exhaustive()
    }
}

//! Speculative decoding: draft tokens in a step. If the model chooses them too, the step yields several tokens of a
//! choice. Drafts take the tokens of the batch that all else has left, and only as long as they are worth their cost.

use weir_engine::Token;

use crate::model::{BatchToken, SequenceId};
use crate::scheduler::guesses::Guess;
use crate::scheduler::plan::{StepBudget, StepBuilder};
use crate::scheduler::sequence::Sequence;
use crate::scheduler::{ChoiceId, Next, Scheduler, Step};

/// The most draft tokens of a choice in a step.
const DRAFT_MAX: usize = 16;
/// The least speed-up for which one more token is drafted: costs and probabilities are estimates, and at the break-even
/// nothing is gained.
const WORTH: f32 = 1.1;
/// Steps without drafts after the model's cache was full in a step that had some.
const PAUSE_STEPS: u64 = 64;

/// The numbers of draft tokens and of accepted ones.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drafted {
    pub drafted: u64,
    pub accepted: u64,
}

/// The outcome of a sampled choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// How many of the choice's draft tokens, from the first on, were accepted.
    pub accepted: u32,
    /// The outcome after the accepted tokens.
    pub next: Next,
}

impl From<Next> for Chosen {
    fn from(next: Next) -> Self {
        Chosen { accepted: 0, next }
    }
}

/// A choice whose draft may grow.
struct Drafting {
    choice: ChoiceId,
    guess: Guess,
    tokens_max: usize,
}

impl Scheduler {
    /// Adds draft tokens for choices that are sampled in the step, the likeliest first, as long as the step then yields
    /// more tokens per time than without.
    pub(super) fn speculate(&mut self, builder: &mut StepBuilder<'_>, budget: StepBudget) {
        let Some(row_cost) = budget.row_cost else {
            return;
        };
        let rows_before = builder.rows();
        let rows_max = budget
            .rows
            .min(self.rows_max)
            .min(rows_before + builder.outputs_left)
            .min(self.kv.free_cells());
        if rows_before >= rows_max || self.steps < self.drafts_from {
            return;
        }
        let mut drafting = self.guesses(builder);
        // Prompt tokens count as a yield too: clients wait for them.
        let mut tokens = builder.rows() as f32;
        for rows in rows_before..rows_max {
            let open = drafting.iter_mut().filter(|it| {
                it.guess.tokens.len() < it.tokens_max && builder.may_draft(it.choice.request)
            });
            let Some(likeliest) = open.max_by(|a, b| a.guess.chance.total_cmp(&b.guess.chance))
            else {
                break;
            };
            let chance = likeliest.guess.chance;
            if chance * (1.0 + row_cost * rows as f32) <= row_cost * tokens * WORTH {
                break;
            }
            tokens += chance;
            let sequence = &self.running[&likeliest.choice].1;
            likeliest.guess.extend(&sequence.tokens);
            builder.count_sampled(likeliest.choice.request);
        }
        for Drafting { choice, guess, .. } in drafting {
            let (id, sequence) = &self.running[&choice];
            builder.push_guess(choice, *id, sequence.known(), &guess.tokens);
        }
    }

    fn guesses(&mut self, builder: &StepBuilder<'_>) -> Vec<Drafting> {
        let mut drafting = Vec::new();
        for sampled in &builder.step.sampled {
            let choice = sampled.choice;
            let Some((_, sequence)) = self.running.get_mut(&choice) else {
                continue;
            };
            let first = *choice.siblings(sequence).start();
            let remaining = sequence.remaining();
            let Sequence {
                guesses: Some(guesses),
                tokens,
                ..
            } = sequence
            else {
                continue;
            };
            let prompt = &mut self
                .prompts
                .get_mut(&first)
                .expect("its request is known")
                .ngrams;
            prompt.read(tokens, tokens.prompt_length());
            // The step yields one token without a draft.
            let tokens_max = (remaining.saturating_sub(1) as usize).min(DRAFT_MAX);
            if let Some(guess) = guesses.begin(prompt, tokens) {
                drafting.push(Drafting {
                    choice,
                    guess,
                    tokens_max,
                });
            }
        }
        drafting
    }

    /// Keeps the accepted draft tokens of a choice and drops the others.
    pub(super) fn accept(&mut self, step: &Step, choice: ChoiceId, accepted: u32) {
        let Some(rows) = step.drafted.get(&choice) else {
            return assert_eq!(accepted, 0, "nothing was drafted for {choice:?}");
        };
        let rows = &step.rows[rows.clone()];
        let (kept, dropped) = rows.split_at(accepted as usize);
        let (id, sequence) = self.running.get_mut(&choice).expect("it is in the step");
        kept.iter().for_each(|row| sequence.push(row.token));
        if accepted > 0 {
            self.kv.extend(*id, accepted);
        }
        // Rejected draft tokens were computed as well.
        let drafted = u32::try_from(rows.len()).expect("a step's rows fit a u32");
        self.accounts.serve(&sequence.account, drafted);
        if !dropped.is_empty() {
            self.kv.take_back(*id);
        }
        self.drafted.drafted += rows.len() as u64;
        self.drafted.accepted += u64::from(accepted);
    }

    /// Stops drafting for [`PAUSE_STEPS`] steps: the cache had no room for a step with drafts.
    pub(super) fn pause_drafts(&mut self) {
        self.drafts_from = self.steps + PAUSE_STEPS;
    }

    /// The numbers of tokens drafted and accepted so far.
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }
}

impl StepBuilder<'_> {
    /// Adds a choice's draft tokens, from position `from` on: after its last known token.
    fn push_guess(&mut self, choice: ChoiceId, id: SequenceId, from: u32, tokens: &[Token]) {
        if tokens.is_empty() {
            return;
        }
        let begin = self.step.rows.len();
        let rows = (from..).zip(tokens).map(|(position, &token)| BatchToken {
            token,
            position,
            sequence: id,
            output: true,
        });
        self.step.rows.extend(rows);
        let rows = begin..self.step.rows.len();
        self.outputs_left -= u32::try_from(rows.len()).expect("a draft is short");
        self.step.drafted.insert(choice, rows);
    }
}

//! Rows for tokens that were only guessed: if the model says them, a step makes several tokens of a choice. They take what
//! the step has left behind everybody else's rows, and only as long as they are worth what a row costs.

use crate::Token;
use crate::model::{Row, SequenceId};
use crate::scheduler::guesses::Guess;
use crate::scheduler::plan::{Draft, Room};
use crate::scheduler::sequence::Sequence;
use crate::scheduler::{ChoiceId, Next, Scheduler, Step};

/// Longest draft of a choice.
const DRAFT_MAX: usize = 16;
/// A token more is to be faster by this factor at least: both costs and chances are estimates, and at the break-even one gains nothing.
const WORTH: f32 = 1.1;
/// Steps without drafts after the model's cache was full with some.
const PAUSE_STEPS: u64 = 64;

/// What was drafted, and what of it came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drafted {
    pub drafted: u64,
    pub accepted: u64,
}

/// What came of a choice that was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// So many of the tokens that were drafted for it, from the first on, were chosen, …
    pub accepted: u32,
    /// … and this after them.
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
    /// Drafts for choices that are sampled in the step, the likeliest token first, as long as the step then makes more tokens in
    /// its time than without.
    pub(super) fn speculate(&mut self, draft: &mut Draft<'_>, room: Room) {
        let Some(row_cost) = room.row_cost else {
            return;
        };
        let rows_before = draft.rows();
        let rows_max = room
            .rows
            .min(self.rows_max)
            .min(rows_before + draft.outputs_left)
            .min(self.kv.free_cells());
        if rows_before >= rows_max || self.steps < self.drafts_from {
            return;
        }
        let mut drafting = self.guesses(draft);
        // Rows of prompts are tokens, too: somebody waits for them.
        let mut tokens = draft.rows() as f32;
        for rows in rows_before..rows_max {
            let open = drafting.iter_mut().filter(|it| {
                it.guess.tokens.len() < it.tokens_max && draft.may_draft(it.choice.request)
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
            draft.count_sampled(likeliest.choice.request);
        }
        for Drafting { choice, guess, .. } in drafting {
            let (id, sequence) = &self.running[&choice];
            draft.push_guess(choice, *id, sequence.known(), &guess.tokens);
        }
    }

    fn guesses(&mut self, draft: &Draft<'_>) -> Vec<Drafting> {
        let mut drafting = Vec::new();
        for sampled in &draft.step.sampled {
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
            // One token comes without a draft.
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

    /// Keeps what was accepted of a draft.
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
        // What was drafted wrong was computed all the same.
        let drafted = u32::try_from(rows.len()).expect("a step's rows fit a u32");
        self.accounts.serve(&sequence.account, drafted);
        if !dropped.is_empty() {
            self.kv.take_back(*id);
        }
        self.drafted.drafted += rows.len() as u64;
        self.drafted.accepted += u64::from(accepted);
    }

    /// The cache had no room for the step: next time without drafts.
    pub(super) fn pause_drafts(&mut self) {
        self.drafts_from = self.steps + PAUSE_STEPS;
    }

    /// Tokens that were drafted and accepted until now.
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }
}

impl Draft<'_> {
    /// Rows behind the last token that is known of a choice.
    fn push_guess(&mut self, choice: ChoiceId, id: SequenceId, from: u32, tokens: &[Token]) {
        if tokens.is_empty() {
            return;
        }
        let begin = self.step.rows.len();
        let rows = (from..).zip(tokens).map(|(position, &token)| Row {
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

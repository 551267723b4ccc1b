//! Background prefill: where the model can, long prompts are computed in the background, one chunk at a time
//! ([`Model::begin_aside`](crate::model::Model::begin_aside)). Steps are left to streams, short prompts and prompts of
//! other accounts meanwhile. The next chunk is of the account whose turn it is.

use std::sync::Arc;

use crate::model::{AsideCapacity, BatchToken, SequenceId};
use crate::scheduler::plan::{ROWS_ALIGNED, StepBuilder};
use crate::scheduler::sequence::{PromptAside, Sequence};
use crate::scheduler::{ChoiceId, RequestId, Scheduler};

/// Background prefill: its limits, and the chunk under way.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) capacity: Option<AsideCapacity>,
    piece: Option<Piece>,
}

/// The background chunk under way. Its KV cells are reserved.
#[derive(Debug)]
struct Piece {
    choice: ChoiceId,
    account: Arc<str>,
    rows: u32,
}

impl Scheduler {
    /// Turns background prefill on, within these limits.
    #[must_use]
    pub fn with_aside(mut self, capacity: Option<AsideCapacity>) -> Self {
        self.aside.capacity = capacity;
        self
    }

    /// The request whose background chunk is under way.
    pub fn aside(&self) -> Option<RequestId> {
        self.aside.piece.as_ref().map(|piece| piece.choice.request)
    }

    /// Whether a background chunk is under way, or a running choice that isn't blocked is due for one.
    pub fn awaits_aside(&self, quota: impl Fn(RequestId) -> u32) -> bool {
        let mut running = self.running.keys();
        self.aside.piece.is_some()
            || running.any(|&choice| quota(choice.request) > 0 && self.goes_aside(choice))
    }

    /// Records that the background chunk is computed. Returns its number of tokens.
    pub fn commit_aside(&mut self) -> u32 {
        let piece = self.aside.piece.take();
        let Piece { choice, rows, .. } = piece.expect("a piece was under way");
        self.kv.reserve(0);
        let (id, sequence) = self.running.get_mut(&choice).expect("it is given up else");
        self.kv.extend(*id, rows);
        sequence.aside = PromptAside::Begun(self.kv.length(*id));
        sequence.stepped = self.steps;
        self.accounts.step(&sequence.account, self.steps);
        self.accounts.serve(&sequence.account, rows);
        rows
    }

    /// Gives the background chunk up because the model had no cells for it or failed: the prompt continues in steps.
    pub fn refuse_aside(&mut self) {
        let Some(Piece { choice, .. }) = self.aside.piece.take() else {
            return;
        };
        self.kv.reserve(0);
        let (_, sequence) = self.running.get_mut(&choice).expect("it is given up else");
        sequence.aside = PromptAside::Refused;
    }

    /// Gives the background chunk up if it is this choice's: the choice is preempted or has ended.
    pub(super) fn give_up_aside(&mut self, choice: ChoiceId) {
        let piece = self.aside.piece.take_if(|piece| piece.choice == choice);
        if piece.is_some() {
            self.kv.reserve(0);
        }
    }

    /// Starts the next background chunk of a choice's prompt, unless another chunk of the same account is under way,
    /// for which the choice waits. `false` if the prompt continues in steps.
    pub(super) fn place_aside(&mut self, builder: &mut StepBuilder<'_>, choice: ChoiceId) -> bool {
        let (id, sequence) = &self.running[&choice];
        let (id, from) = (*id, self.kv.length(*id));
        let Some(rows) = self.piece(choice, sequence, from) else {
            return false;
        };
        if self.aside.piece.is_some() {
            return true;
        }
        let cells = builder.rows() + rows;
        // Nothing is evicted for a chunk that doesn't fit anyway.
        if self.kv.free_cells() + self.kv.idle_cells() < cells || !self.make_room(cells) {
            return false;
        }
        self.kv.reserve(rows);
        let (_, sequence) = self.running.get_mut(&choice).expect("it was there");
        sequence.aside = PromptAside::Begun(from);
        builder.step.aside = piece_rows(id, sequence, from, rows);
        self.aside.piece = Some(Piece {
            choice,
            account: Arc::clone(&sequence.account),
            rows,
        });
        true
    }

    /// Whether the choice's prompt is computed in the background, not in steps. A waiting choice is judged as if
    /// nothing of its prompt were cached.
    pub(super) fn goes_aside(&self, choice: ChoiceId) -> bool {
        let running = self.running.get(&choice);
        let running = running.map(|(id, sequence)| (sequence, self.kv.length(*id)));
        let waiting = || Some((self.waiting.get(&choice)?, 0));
        running
            .or_else(waiting)
            .is_some_and(|(sequence, from)| self.piece(choice, sequence, from).is_some())
    }

    /// Whether a choice that is admitted with `from` cached tokens would only wait for the background chunk under way.
    pub(super) fn would_wait(&self, choice: ChoiceId, from: u32) -> bool {
        let waiting = self.waiting.get(&choice);
        self.aside.piece.is_some()
            && waiting.is_some_and(|sequence| self.piece(choice, sequence, from).is_some())
    }

    /// The size in tokens of the choice's next background chunk, with chunks of about equal size; `None` if its prompt
    /// is computed in steps.
    fn piece(&self, choice: ChoiceId, sequence: &Sequence, from: u32) -> Option<u32> {
        let AsideCapacity {
            rows,
            rows_min,
            tokens,
        } = self.aside.capacity?;
        // The last token is left to a step, since its logits are wanted.
        let left = (sequence.known() - 1).min(tokens).saturating_sub(from);
        let prompt = &self.prompts[choice.siblings(sequence).start()];
        let least = match sequence.aside {
            PromptAside::Begun(length) if length == from => 1,
            PromptAside::Open | PromptAside::Begun(_) => rows_min.max(1),
            PromptAside::Refused => return None,
        };
        let piece = self.aside.piece.as_ref();
        let others = piece.is_some_and(|piece| piece.account != sequence.account);
        if left < least || others || !prompt.unscored.is_empty() {
            return None;
        }
        let even = left.div_ceil(left.div_ceil(rows));
        Some(even.next_multiple_of(ROWS_ALIGNED).min(left).min(rows))
    }
}

fn piece_rows(id: SequenceId, sequence: &Sequence, from: u32, rows: u32) -> Vec<BatchToken> {
    let tokens = sequence.tokens.from(from).take(rows as usize);
    let row = |(position, token)| BatchToken {
        token,
        position,
        sequence: id,
        output: false,
    };
    (from..).zip(tokens).map(row).collect()
}

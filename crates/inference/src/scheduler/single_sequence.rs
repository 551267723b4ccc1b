//! Steps for [`Batching::OneSequence`](crate::model::Batching::OneSequence): a token's logits depend on the shape of
//! its batch, so the batches of a sequence are always the same: the prompt without its last token in chunks at fixed
//! positions, then each token alone, also when a sequence is computed again. Accounts take turns, and so do the
//! sequences of each.

use crate::scheduler::admit::Reserve;
use crate::scheduler::plan::StepBuilder;
use crate::scheduler::{Admission, ChoiceId, Scheduler};

impl Scheduler {
    /// Fills the step with tokens of the sequence whose turn it is.
    pub(super) fn fill_single_sequence(&mut self, builder: &mut StepBuilder<'_>) {
        // Admit one choice at a time: a fork may be a copy of the whole sequence, and streams wait meanwhile.
        if self.admission == Admission::Open {
            self.begin_next(builder, Reserve::Kept);
        }
        let mut running: Vec<ChoiceId> = self.running.keys().copied().collect();
        running.sort_by_key(|choice| {
            let sequence = &self.running[choice].1;
            (self.stepped(&sequence.account), sequence.stepped, *choice)
        });
        for choice in running {
            if builder.is_blocked(choice.request) || self.is_parked(choice) {
                continue;
            }
            self.place_alone(builder, choice);
            if !builder.step.rows.is_empty() {
                return;
            }
        }
    }

    fn place_alone(&mut self, builder: &mut StepBuilder<'_>, choice: ChoiceId) {
        let (id, sequence) = &self.running[&choice];
        let (from, chunked) = (self.kv.length(*id), sequence.prompt_length() - 1);
        if from < chunked {
            // Chunks are never computed in part, so `from` is where a chunk begins.
            let rows = self.capacity.chunk().min(chunked - from);
            self.place(builder, choice, rows);
            builder.step.prompt_rows = rows;
        } else {
            self.place(builder, choice, 1);
        }
    }
}

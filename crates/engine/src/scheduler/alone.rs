//! Steps for [`Batching::OneSequence`](crate::model::Batching::OneSequence): the logits of a row depend
//! on the rows beside it, so these are always the same: the prompt without its last token in chunks at
//! fixed places, then each token alone, also when a sequence is computed again. Sequences take turns.

use crate::scheduler::admit::Reserve;
use crate::scheduler::plan::Draft;
use crate::scheduler::{Admission, Holder, Scheduler};

impl Scheduler {
    /// Rows of whoever's turn it is.
    pub(super) fn fill_alone(&mut self, draft: &mut Draft<'_>) {
        // One at a time: a fork may be a copy of the whole sequence, and streams wait meanwhile.
        if self.admission == Admission::Open {
            self.begin_oldest(draft, Reserve::Kept);
        }
        let turn = self.turn;
        let (after, before): (Vec<_>, Vec<_>) =
            self.holders().partition(|&(age, _)| Some(age) > turn);
        for (age, holder) in after.into_iter().chain(before) {
            if draft.is_blocked(holder.request()) || self.is_parked(holder) {
                continue;
            }
            self.place_alone(draft, holder);
            if !draft.step.rows.is_empty() {
                self.turn = Some(age);
                return;
            }
        }
    }

    fn place_alone(&self, draft: &mut Draft<'_>, holder: Holder) {
        let (from, chunked) = match holder {
            Holder::Trunk(first) => {
                let trunk = &self.trunks[&first];
                (self.kv.length(trunk.id), trunk.length())
            }
            Holder::Choice(choice) => {
                let (id, sequence) = &self.running[&choice];
                (self.kv.length(*id), sequence.prompt_length() - 1)
            }
        };
        if from < chunked {
            // Nothing is ever computed in part, so `from` is where a chunk begins.
            let rows = self.capacity.chunk().min(chunked - from);
            self.place(draft, holder, rows);
            draft.step.prompt_rows = rows;
        } else {
            self.place(draft, holder, 1);
        }
    }
}

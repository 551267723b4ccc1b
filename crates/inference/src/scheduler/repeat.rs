//! Requests that are to have the same answer when they come again and run alone, though their prompt is cached then
//! ([`Request::repeatable`](weir_engine::Request::repeatable)).
//!
//! Kernels round differently for one token than for several, and attention adds up in the order of the KV cells. So the
//! last token of such a prompt, the only one left to compute once the prompt is cached, has a step of its own the first
//! time, too. When the request comes again, it continues in the sequence that it left, and its answer replaces the old
//! one. The model takes the first cells that are free, so that an answer gets the same cells again if none become free
//! while it is made: room is made before.

use crate::model::Forks;
use crate::scheduler::admit::Beginning;
use crate::scheduler::{ChoiceId, Scheduler};

impl Scheduler {
    /// Whether a choice of a repeatable request runs, and no other choice beside it.
    pub(super) fn repeatable_runs_alone(&self) -> bool {
        let mut running = self.running.values();
        running.next().is_some_and(|(_, it)| it.repeatable) && running.next().is_none()
    }

    /// Makes room for all tokens of a choice that was just admitted, so that nothing is evicted while it runs. An
    /// answer may be longer than expected, and then need more.
    pub(super) fn make_room_at_once(&mut self, choice: ChoiceId) {
        let (id, sequence) = &self.running[&choice];
        let expected = sequence.remaining().min(self.output_expected);
        let cells = sequence.known() - self.kv.length(*id) + expected;
        self.let_go_of_aged();
        self.make_room(cells);
    }

    /// Where the choice's prompt pauses, so that its last token is computed in a step of its own. `None` beside other
    /// choices, which would share that step.
    pub(super) fn last_apart(&self, choice: ChoiceId) -> Option<u32> {
        let (_, sequence) = &self.running[&choice];
        let alone = self.running.len() == 1;
        (sequence.repeatable && alone).then(|| sequence.prompt_length() - 1)
    }

    /// The sequence that the same request left when it came before, and the prompt's tokens without the last; only for
    /// a request with a single choice. Even a few tokens aren't computed again: in other cells attention would add up
    /// in another order.
    pub(super) fn left_before(&self, choice: ChoiceId) -> Beginning {
        let sequence = &self.waiting[&choice];
        let siblings = choice.siblings(sequence);
        let length = sequence.prompt_length() - 1;
        let may_repeat = sequence.repeatable
            && self.capacity.forks == Forks::Anywhere
            && siblings.start() == siblings.end()
            && self.prompts[siblings.start()].unscored.is_empty()
            && length > 0;
        let same = self.kept.of_prompt(sequence).filter(|_| may_repeat);
        same.filter(|&id| self.kv.length(id) >= length)
            .map(|id| (id, length))
    }
}

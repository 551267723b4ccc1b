//! Requests that are to have the same answer when they come again, alone, though their prompt is cached then
//! ([`Request::repeatable`](crate::Request::repeatable)).
//!
//! Kernels round otherwise for one row than for several, and attention adds up in the order of the cells. So the last token of such a
//! prompt, which is all that is left of one that is cached, has a step of its own the first time, too; and when the request comes again, it
//! goes on in the sequence that it left, whose answer it replaces. The model takes the first cells that are free, so an answer has the same
//! ones again if none become free while it is made: room is made before.

use crate::model::Forks;
use crate::scheduler::admit::Beginning;
use crate::scheduler::{ChoiceId, Scheduler};

impl Scheduler {
    /// Whether a choice runs that is to have the same answer when it comes again, and nothing beside it.
    pub(super) fn repeatable_runs_alone(&self) -> bool {
        let mut running = self.running.values();
        running.next().is_some_and(|(_, it)| it.repeatable) && running.next().is_none()
    }

    /// Makes room for all of the choice that has begun, so that nothing is let go of while it runs. The answer may be longer than is expected.
    pub(super) fn make_room_at_once(&mut self, choice: ChoiceId) {
        let (id, sequence) = &self.running[&choice];
        let expected = sequence.remaining().min(self.output_expected);
        let cells = sequence.known() - self.kv.length(*id) + expected;
        self.let_go_of_aged();
        self.make_room(cells);
    }

    /// Where the choice's prompt pauses, so that its last token is computed alone. Beside others it wouldn't be.
    pub(super) fn last_apart(&self, choice: ChoiceId) -> Option<u32> {
        let (_, sequence) = &self.running[&choice];
        let alone = self.running.len() == 1;
        (sequence.repeatable && alone).then(|| sequence.prompt_length() - 1)
    }

    /// The sequence that the request left when it came before, if the choice is its only one, and the tokens of the prompt but the last.
    /// However few they are, they aren't computed again: elsewhere in the cache attention would add up in another order.
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

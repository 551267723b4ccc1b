//! Requests that are to have the same answer when they come again, alone, though their prompt is cached then
//! ([`Request::repeatable`](crate::Request::repeatable)).
//!
//! Kernels round otherwise for one row than for several, and attention adds up in the order of the cells. So the last token of such a
//! prompt, which is all that is left of one that is cached, has a step of its own the first time, too; and when the request comes again, it
//! goes on in the sequence that it left, whose answer it replaces: its cells are where they were.

use crate::model::Forks;
use crate::scheduler::admit::Beginning;
use crate::scheduler::sequence::Tokens;
use crate::scheduler::{ChoiceId, Scheduler};

impl Scheduler {
    /// Where the choice's prompt pauses, so that its last token is computed alone. Beside others it wouldn't be.
    pub(super) fn last_apart(&self, choice: ChoiceId) -> Option<u32> {
        let (_, sequence) = &self.running[&choice];
        let alone = self.running.len() == 1;
        (sequence.repeatable && alone).then(|| sequence.prompt_length() - 1)
    }

    /// Whether the choice is the only one of a request that comes once more, so that it may have the sequence of the first time: that one's
    /// prompt was the same.
    pub(super) fn repeats(&self, choice: ChoiceId, source: Beginning) -> bool {
        let sequence = &self.waiting[&choice];
        let siblings = choice.siblings(sequence);
        let Some((from, length)) = source else {
            return false;
        };
        let is_same = |tokens: &Tokens| tokens.prompt == sequence.tokens.prompt;
        sequence.repeatable
            && self.capacity.forks == Forks::Anywhere
            && siblings.start() == siblings.end()
            && length + 1 == sequence.prompt_length()
            && self
                .kept
                .entry(from)
                .is_some_and(|(tokens, _)| is_same(tokens))
    }
}

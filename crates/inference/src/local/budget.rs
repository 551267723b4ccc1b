//! The limit of an answer's reasoning: `thinking_token_budget`.

use weir_engine::Token;

use crate::prepared::ThinkingLimit;

/// How many of an answer's last bytes are searched for a mark. A mark and the tokens that it is a part of are shorter.
const TAIL_BYTES: usize = 256;

/// Counts the tokens of a choice's reasoning. When there are enough, it forces the tokens that close the reasoning.
#[derive(Debug)]
pub(crate) struct ThinkingBudget {
    limit: ThinkingLimit,
    state: State,
    /// The last bytes of the text.
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    /// In the reasoning, which may have this many more tokens.
    Thinking(u32),
    /// The reasoning is being closed; this many tokens of the closing mark are generated.
    Closing(usize),
    Behind,
}

impl ThinkingBudget {
    pub(crate) fn new(limit: &ThinkingLimit) -> Self {
        let state = match limit.is_open {
            true => State::Thinking(limit.tokens),
            false => State::Before,
        };
        let mut budget = ThinkingBudget {
            limit: limit.clone(),
            state,
            tail: Vec::new(),
        };
        budget.close_if_used_up();
        budget
    }

    /// The token that must come next, while the reasoning is being closed.
    pub(crate) fn forced(&self) -> Option<Token> {
        match self.state {
            State::Closing(said) => self.limit.closing.get(said).copied(),
            State::Before | State::Thinking(_) | State::Behind => None,
        }
    }

    /// Records a generated token with this text.
    pub(crate) fn advance(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text);
        self.state = match self.state {
            State::Before => match self.has_said(self.limit.open) {
                true => State::Thinking(self.limit.tokens),
                false => State::Before,
            },
            State::Thinking(left) => match self.has_said(self.limit.close) {
                true => State::Behind,
                false => State::Thinking(left.saturating_sub(1)),
            },
            State::Closing(said) if said + 1 < self.limit.closing.len() => State::Closing(said + 1),
            State::Closing(_) | State::Behind => State::Behind,
        };
        self.close_if_used_up();
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
    }

    fn close_if_used_up(&mut self) {
        if self.state == State::Thinking(0) {
            self.state = State::Closing(0);
        }
    }

    /// Whether the text has the mark; if so, the text up to its end isn't searched again.
    fn has_said(&mut self, mark: &str) -> bool {
        let mut windows = self.tail.windows(mark.len());
        let found = windows.position(|window| window == mark.as_bytes());
        if let Some(at) = found {
            self.tail.drain(..at + mark.len());
        }
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The text of an answer that would be `text` without a budget. Each character is a token; the marks are `<` and
    /// `>!`.
    fn said(tokens: u32, is_open: bool, text: &str) -> String {
        let limit = ThinkingLimit {
            tokens,
            open: "<",
            close: ">!",
            closing: Arc::from([u32::from(b'>'), u32::from(b'!')]),
            is_open,
        };
        let mut budget = ThinkingBudget::new(&limit);
        let mut said = String::new();
        let mut wanted = text.bytes();
        loop {
            let byte = match budget.forced() {
                Some(token) => u8::try_from(token).unwrap(),
                None => match wanted.next() {
                    Some(byte) => byte,
                    None => return said,
                },
            };
            budget.advance(&[byte]);
            said.push(char::from(byte));
        }
    }

    #[test]
    fn reasoning_is_closed() {
        assert_eq!(said(3, false, "a<bcdef"), "a<bcd>!ef");
        assert_eq!(said(3, false, "<b>!cdef"), "<b>!cdef");
        assert_eq!(said(3, false, "<ab>!cdef"), "<ab>>!!cdef");
        assert_eq!(said(2, true, "abcd"), "ab>!cd");
        assert_eq!(said(0, true, "abcd"), ">!abcd");
        assert_eq!(said(0, false, "a<b"), "a<>!b");
        assert_eq!(said(3, false, "<a>!<bcdef"), "<a>!<bcdef");
        assert_eq!(said(2, false, "abcd"), "abcd");
    }
}

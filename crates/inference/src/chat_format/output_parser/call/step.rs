//! The parts that the parsers of all syntaxes share.

use weir_engine::request::Tool;

/// The result of a character.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::chat_format::output_parser) enum Step {
    More,
    /// The text isn't a call, or calls an unknown tool. These characters weren't taken.
    Refused(String),
    /// The call has ended. These characters aren't part of it.
    Ended(String),
}

impl Step {
    pub(super) fn refused(c: char) -> Self {
        Step::Refused(String::from(c))
    }

    pub(super) fn ended(c: char) -> Self {
        Step::Ended(String::from(c))
    }

    /// The result of several characters, if this is the result of the first ones and `rest` follows them.
    pub(super) fn before(self, rest: &str) -> Self {
        match self {
            Step::More => Step::More,
            Step::Refused(text) => Step::Refused(text + rest),
            Step::Ended(text) => Step::Ended(text + rest),
        }
    }
}

pub(super) fn find<'a>(tools: &'a [Tool], name: &str) -> Option<&'a Tool> {
    tools.iter().find(|tool| tool.name == name)
}

pub(super) fn is_begun(tools: &[Tool], name: &str) -> bool {
    tools.iter().any(|tool| tool.name.starts_with(name))
}

/// Finds the mark that ends a call, outside of strings, where JSON has nothing like it.
#[derive(Debug)]
pub(super) struct Close {
    mark: &'static str,
    matched: usize,
}

pub(super) enum Closing {
    Held,
    Closed,
    /// These characters aren't part of the mark.
    Released(String),
}

impl Close {
    /// An empty mark is never found.
    pub(super) fn new(mark: &'static str) -> Self {
        Close { mark, matched: 0 }
    }

    pub(super) fn step(&mut self, c: char) -> Closing {
        if self.mark[self.matched..].starts_with(c) {
            self.matched += c.len_utf8();
            if self.matched < self.mark.len() {
                return Closing::Held;
            }
            self.matched = 0;
            return Closing::Closed;
        }
        let mut released = self.mark[..std::mem::take(&mut self.matched)].to_owned();
        // A mark's first character occurs in it only once.
        if self.mark.starts_with(c) {
            self.matched = c.len_utf8();
        } else {
            released.push(c);
        }
        Closing::Released(released)
    }
}

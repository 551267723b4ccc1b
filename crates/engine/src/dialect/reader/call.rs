//! Calls under way, in each of the ways to write them.

mod json;
mod named;
mod tagged;

use self::json::JsonCalls;
use self::named::NamedCall;
use self::tagged::TaggedCalls;
use super::out::Out;
use crate::dialect::format::{Format, Syntax};
use crate::request::Tool;

/// Reads from the mark that begins a call to where the last one ends that belongs to this mark.
#[derive(Debug)]
pub(super) enum Call {
    Json(JsonCalls),
    Named(NamedCall),
    Tagged(TaggedCalls),
}

/// What a character has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// This is no call, or of a tool that there isn't; this text is not read.
    Refused(String),
    /// It has ended, and this text is not part of it.
    Ended(String),
}

impl Step {
    fn refused(c: char) -> Self {
        Step::Refused(String::from(c))
    }

    fn ended(c: char) -> Self {
        Step::Ended(String::from(c))
    }

    /// What several characters come to, if this is what the first of them does, before `rest`.
    fn before(self, rest: &str) -> Self {
        match self {
            Step::More => Step::More,
            Step::Refused(text) => Step::Refused(text + rest),
            Step::Ended(text) => Step::Ended(text + rest),
        }
    }
}

impl Call {
    pub(super) fn new(format: &Format) -> Self {
        match format.syntax {
            Syntax::Json { close } => Call::Json(JsonCalls::new(close, format.bare)),
            Syntax::Named { prefix, close } => Call::Named(NamedCall::new(prefix, close)),
            Syntax::Tagged(tags) => Call::Tagged(TaggedCalls::new(tags)),
        }
    }

    pub(super) fn step(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        match self {
            Call::Json(calls) => calls.step(c, tools, out),
            Call::Named(call) => call.step(c, tools, out),
            Call::Tagged(calls) => calls.step(c, tools, out),
        }
    }

    /// Whether what was read belongs to a call; else it may still turn out to be text.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Call::Json(calls) => calls.is_certain(),
            Call::Named(call) => call.is_certain(),
            Call::Tagged(calls) => calls.is_certain(),
        }
    }

    /// No more text comes. With `ended` the model has ended its turn; else it was cut off, and what it
    /// didn't write is not made up.
    pub(super) fn finish(&mut self, ended: bool, out: &mut Out) {
        match self {
            Call::Json(calls) => calls.finish(ended, out),
            Call::Named(call) => call.finish(ended, out),
            Call::Tagged(calls) => calls.finish(ended, out),
        }
    }
}

fn find<'a>(tools: &'a [Tool], name: &str) -> Option<&'a Tool> {
    tools.iter().find(|tool| tool.name == name)
}

fn is_begun(tools: &[Tool], name: &str) -> bool {
    tools.iter().any(|tool| tool.name.starts_with(name))
}

/// The mark that ends a call, seen outside of strings, where JSON has nothing like it.
#[derive(Debug)]
struct Close {
    mark: &'static str,
    matched: usize,
}

enum Closing {
    Held,
    Closed,
    /// These characters are something else.
    Released(String),
}

impl Close {
    /// An empty mark never comes.
    fn new(mark: &'static str) -> Self {
        Close { mark, matched: 0 }
    }

    fn step(&mut self, c: char) -> Closing {
        if self.mark[self.matched..].starts_with(c) {
            self.matched += c.len_utf8();
            if self.matched < self.mark.len() {
                return Closing::Held;
            }
            self.matched = 0;
            return Closing::Closed;
        }
        let mut released = self.mark[..std::mem::take(&mut self.matched)].to_owned();
        // Marks begin with a character that they have only once.
        if self.mark.starts_with(c) {
            self.matched = c.len_utf8();
        } else {
            released.push(c);
        }
        Closing::Released(released)
    }
}

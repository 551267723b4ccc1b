//! Parsers of tool calls, one for each syntax.

mod json;
mod named;
mod tagged;

use weir_engine::request::Tool;

use self::json::JsonCalls;
use self::named::NamedCall;
use self::tagged::TaggedCalls;
use super::out::Out;
use crate::chat_format::format::{Format, Syntax};

/// Parses from the mark that begins calls to the end of the last call that belongs to this mark.
#[derive(Debug)]
pub(super) enum Call {
    Json(JsonCalls),
    Named(NamedCall),
    Tagged(TaggedCalls),
}

/// The result of a character.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The text isn't a call, or calls an unknown tool. These characters weren't taken.
    Refused(String),
    /// The call has ended. These characters aren't part of it.
    Ended(String),
}

impl Step {
    fn refused(c: char) -> Self {
        Step::Refused(String::from(c))
    }

    fn ended(c: char) -> Self {
        Step::Ended(String::from(c))
    }

    /// The result of several characters, if this is the result of the first ones and `rest` follows them.
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

    /// Whether the text so far certainly belongs to a call. Otherwise it may still turn out to be content.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Call::Json(calls) => calls.is_certain(),
            Call::Named(call) => call.is_certain(),
            Call::Tagged(calls) => calls.is_certain(),
        }
    }

    /// Ends the call at the end of the text. With `ended` the model has ended its turn, and a missing end is added;
    /// otherwise the answer was cut off, and nothing is added.
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

/// Finds the mark that ends a call, outside of strings, where JSON has nothing like it.
#[derive(Debug)]
struct Close {
    mark: &'static str,
    matched: usize,
}

enum Closing {
    Held,
    Closed,
    /// These characters aren't part of the mark.
    Released(String),
}

impl Close {
    /// An empty mark is never found.
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
        // A mark's first character occurs in it only once.
        if self.mark.starts_with(c) {
            self.matched = c.len_utf8();
        } else {
            released.push(c);
        }
        Closing::Released(released)
    }
}

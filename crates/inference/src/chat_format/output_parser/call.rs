//! Parsers of tool calls, one for each syntax.

mod json;
mod named;
mod step;
mod tagged;

use weir_engine::request::Tool;

use self::json::JsonCalls;
use self::named::NamedCall;
pub(super) use self::step::Step;
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

//! The parts of a grammar, as callers and chat formats ask for them.

use std::sync::Arc;

use serde_json::{Value, json};
use weir_engine::Token;
use weir_engine::request::Schema;

/// A part of a grammar. This crate makes all parts except callers' schemas, patterns and grammars.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Literal(String),
    /// A special token, matched by its id: no text stands for it.
    Token(Token),
    Regex(&'static str),
    /// A regular expression that takes the shortest text that matches.
    Lazy(String),
    Sequence(Vec<Part>),
    OneOf(Vec<Part>),
    /// The part, `least` (1 or more) to `most` times; without `most` there is no upper limit.
    Repeat {
        part: Box<Part>,
        least: u64,
        most: Option<u64>,
    },
    Json(Schema),
    /// A caller's regular expression, which must match as a whole, and the request field that contains it.
    Pattern(Arc<str>, &'static str),
    /// A caller's grammar, and the request field that contains it.
    Grammar(Arc<str>, &'static str),
}

impl Part {
    pub(crate) fn literal(text: impl Into<String>) -> Self {
        Part::Literal(text.into())
    }

    /// This part, or an empty text.
    pub(crate) fn optional(self) -> Self {
        Part::OneOf(vec![self, Part::Sequence(Vec::new())])
    }

    /// Total bytes of the literals, expressions, schemas and grammars in this part.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Part::Literal(text) | Part::Lazy(text) => text.len(),
            Part::Token(_) | Part::Regex(_) => 0,
            Part::Sequence(parts) | Part::OneOf(parts) => parts.iter().map(Part::bytes).sum(),
            Part::Repeat { part, .. } => part.bytes(),
            Part::Json(schema) => schema.text().len(),
            Part::Pattern(text, _) | Part::Grammar(text, _) => text.len(),
        }
    }

    /// The request fields of all callers' schemas, patterns and grammars in this part.
    pub(super) fn params(&self) -> Vec<&str> {
        match self {
            Part::Literal(_) | Part::Token(_) | Part::Regex(_) | Part::Lazy(_) => Vec::new(),
            Part::Sequence(parts) | Part::OneOf(parts) => {
                parts.iter().flat_map(Part::params).collect()
            }
            Part::Repeat { part, .. } => part.params(),
            Part::Json(schema) => vec![schema.param()],
            Part::Pattern(_, param) | Part::Grammar(_, param) => vec![param],
        }
    }

    /// Whether this part contains a schema that isn't strict, so that a part of it may be left out.
    pub(super) fn may_relax(&self) -> bool {
        match self {
            Part::Sequence(parts) | Part::OneOf(parts) => parts.iter().any(Part::may_relax),
            Part::Repeat { part, .. } => part.may_relax(),
            Part::Json(schema) => !schema.is_strict(),
            _ => false,
        }
    }
}

/// The grammar that an output must follow. [`Constraints::compile`](super::Constraints::compile) finds out whether it is
/// valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grammar(pub(crate) Part);

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Grammar::json_schema(&json!({ "type": "object" }))
    }

    /// JSON that this JSON Schema allows.
    pub fn json_schema(schema: &Value) -> Self {
        Grammar(Part::Json(Schema::from(schema.clone())))
    }

    /// The request field to name in errors: the one that contains the grammar, or `tools` if there are several.
    pub(super) fn param(&self) -> &str {
        match &*self.0.params() {
            [param] => param,
            [] => "response_format",
            _ => "tools",
        }
    }

    /// Texts that an expression in Rust's syntax matches as a whole.
    pub fn regex(regex: &str) -> Self {
        Grammar(Part::Pattern(regex.into(), "structured_outputs.regex"))
    }
}

//! What a text must look like: the parts that callers and chat formats ask for.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Token;

/// Where the schema of `response_format` stands in a request.
pub const SCHEMA_PARAM: &str = "response_format.json_schema.schema";

/// A JSON Schema, and where in a request it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    text: Arc<str>,
    param: Arc<str>,
    is_strict: bool,
    only_objects: bool,
}

impl Schema {
    /// A schema's text. What can't be enforced of it is left out; `param` is the field it stands in, nested with dots.
    pub fn new(text: impl Into<Arc<str>>, param: impl Into<Arc<str>>) -> Self {
        Schema {
            text: text.into(),
            param: param.into(),
            is_strict: false,
            only_objects: false,
        }
    }

    /// The same, refused where something of it can't be enforced.
    #[must_use]
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// The same, for objects only, also where the schema leaves that open.
    #[must_use]
    pub(crate) fn of_objects(mut self) -> Self {
        self.only_objects = true;
        self
    }

    pub(super) fn only_objects(&self) -> bool {
        self.only_objects
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn param(&self) -> &str {
        &self.param
    }

    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The JSON pointer of a place in the schema, from the beginning of the request.
    pub(super) fn pointer(&self, within: &str) -> String {
        let place = self.param.replace('.', "/");
        format!("/{place}{within}")
    }
}

impl From<Value> for Schema {
    fn from(schema: Value) -> Self {
        Schema::new(schema.to_string(), SCHEMA_PARAM)
    }
}

/// A part of a text. All but a caller's schema, pattern and grammar come from this crate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Literal(String),
    /// A special token, which no text stands for.
    Token(Token),
    Regex(&'static str),
    /// The shortest text that matches.
    Lazy(String),
    Sequence(Vec<Part>),
    OneOf(Vec<Part>),
    /// At least `least` times, which is 1 or more.
    Repeat {
        part: Box<Part>,
        least: u64,
        most: Option<u64>,
    },
    Json(Schema),
    /// What a caller's expression matches as a whole, and the field that it stands in.
    Pattern(Arc<str>, &'static str),
    /// What a caller's grammar derives, and the field that it stands in.
    Grammar(Arc<str>, &'static str),
}

impl Part {
    pub(crate) fn literal(text: impl Into<String>) -> Self {
        Part::Literal(text.into())
    }

    /// It, or nothing.
    pub(crate) fn optional(self) -> Self {
        Part::OneOf(vec![self, Part::Sequence(Vec::new())])
    }

    /// Bytes of what callers wrote in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Part::Literal(text) | Part::Lazy(text) => text.len(),
            Part::Token(_) | Part::Regex(_) => 0,
            Part::Sequence(parts) | Part::OneOf(parts) => parts.iter().map(Part::bytes).sum(),
            Part::Repeat { part, .. } => part.bytes(),
            Part::Json(schema) => schema.text.len(),
            Part::Pattern(text, _) | Part::Grammar(text, _) => text.len(),
        }
    }

    /// The fields that callers wrote.
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

    /// Whether a schema is in it that may be enforced in part.
    pub(super) fn may_relax(&self) -> bool {
        match self {
            Part::Sequence(parts) | Part::OneOf(parts) => parts.iter().any(Part::may_relax),
            Part::Repeat { part, .. } => part.may_relax(),
            Part::Json(schema) => !schema.is_strict,
            _ => false,
        }
    }
}

/// What an output must look like. Whether it makes sense, [`Constraints::compile`](super::Constraints::compile) says.
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

    /// The field of a request that the grammar is made of.
    pub(super) fn param(&self) -> &str {
        match &*self.0.params() {
            [param] => param,
            [] => "response_format",
            _ => "tools",
        }
    }

    /// What an expression matches as a whole, in Rust's syntax.
    pub fn regex(regex: &str) -> Self {
        Grammar(Part::Pattern(regex.into(), "structured_outputs.regex"))
    }
}

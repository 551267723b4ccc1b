//! A JSON Schema that an answer, or a call's arguments, must follow.

use std::sync::Arc;

use serde_json::Value;

/// Path of the `response_format` schema in a request.
pub const SCHEMA_PARAM: &str = "response_format.json_schema.schema";

/// A JSON Schema, and the path of the request field that contains it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    text: Arc<str>,
    param: Arc<str>,
    is_strict: bool,
    only_objects: bool,
}

impl Schema {
    /// Makes a schema from its text. Keywords that can't be enforced are left out, unless the schema is
    /// [`strict`](Schema::strict). `param` is the path of the request field that contains the schema, with dots between
    /// names.
    pub fn new(text: impl Into<Arc<str>>, param: impl Into<Arc<str>>) -> Self {
        Schema {
            text: text.into(),
            param: param.into(),
            is_strict: false,
            only_objects: false,
        }
    }

    /// Sets whether the schema is refused, instead of relaxed, if a part of it can't be enforced.
    #[must_use]
    pub fn strict(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Limits the schema to objects, even if its text allows other types.
    #[must_use]
    pub fn of_objects(mut self) -> Self {
        self.only_objects = true;
        self
    }

    pub fn only_objects(&self) -> bool {
        self.only_objects
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn param(&self) -> &str {
        &self.param
    }

    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Turns a JSON pointer within the schema into one from the root of the request.
    pub fn pointer(&self, within: &str) -> String {
        let place = self.param.replace('.', "/");
        format!("/{place}{within}")
    }
}

impl From<Value> for Schema {
    fn from(schema: Value) -> Self {
        Schema::new(schema.to_string(), SCHEMA_PARAM)
    }
}

//! The requested format of an answer.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use crate::json::Schema;
use crate::value::{List, fields, object};

/// Most texts of a `choice`, one of which the answer has to be.
const CHOICES_MAX: usize = 4_096;

fields! {
    /// The fields that can set the format of an answer.
    pub struct Formats {
        response_format: ResponseFormat,
        /// vLLM's fields for the same: the current one, and the older `guided_*`.
        structured_outputs: StructuredOutputs,
        guided_json: GivenSchema,
        guided_regex: String,
        guided_choice: List<String, CHOICES_MAX>,
        guided_grammar: String,
    }
}

object! {
    /// `response_format`
    pub struct ResponseFormat {
        kind as "type": String,
        json_schema: JsonSchema,
        /// The schema of a `json_object`, in text-generation-inference's field.
        value: Schema,
        /// The schema of a `json_object` or a `json_schema`, in llama-server's field.
        schema: Schema,
    }
}

object! {
    pub struct JsonSchema {
        name: String,
        description: String,
        schema: Schema,
        strict: bool,
    }
}

object! {
    /// `structured_outputs`, vLLM's field.
    pub struct StructuredOutputs {
        json: GivenSchema,
        regex: String,
        choice: List<String, CHOICES_MAX>,
        grammar: String,
        json_object: bool,
        structural_tag: Foreign,
        /// The caller can't choose how white space is written.
        whitespace_pattern: Foreign,
        disable_any_whitespace: bool,
        disable_additional_properties: bool,
        disable_fallback: bool,
    }
}

/// A field of another server: whether its value asks for anything. Some clients send empty values for fields that they
/// don't use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    pub says_something: bool,
}

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let is_empty = match text.as_bytes() {
            [b'{' | b'[', within @ .., b'}' | b']'] => within.trim_ascii().is_empty(),
            _ => ["\"\"", "false", "null"].contains(&text),
        };
        Ok(Foreign {
            says_something: !is_empty,
        })
    }
}

/// A schema as a JSON object, or as a string with the schema's text.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenSchema {
    Object(Schema),
    Text(String),
}

impl<'de> Deserialize<'de> for GivenSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let read = match text.starts_with('"') {
            true => serde_json::from_str(text).map(GivenSchema::Text),
            false => serde_json::from_str(text).map(GivenSchema::Object),
        };
        read.map_err(|error| {
            let message = error.to_string();
            D::Error::custom(message.split(" at line ").next().unwrap_or_default())
        })
    }
}

//! What an answer must look like.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use crate::json::Schema;
use crate::value::{List, object};

/// Texts among which an answer is chosen.
pub const CHOICES_MAX: usize = 4_096;

object! {
    /// `response_format`
    pub struct ResponseFormat {
        kind as "type": String,
        json_schema: JsonSchema,
        /// The schema of a `json_object`, as text-generation-inference takes it.
        value: Schema,
        /// The same as llama-server takes it, also of a `json_schema`.
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
    /// `structured_outputs`, as vLLM has it.
    pub struct StructuredOutputs {
        json: GivenSchema,
        regex: String,
        choice: List<String, CHOICES_MAX>,
        grammar: String,
        json_object: bool,
        structural_tag: Foreign,
        /// How white space is written isn't the caller's to say.
        whitespace_pattern: Foreign,
        disable_any_whitespace: bool,
        disable_additional_properties: bool,
        disable_fallback: bool,
    }
}

/// A field of another server: whether it says anything. Clients send empty values where they mean none.
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

/// A schema, or its text in a string.
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

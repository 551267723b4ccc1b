//! The tools that the model may call, and whether it must call one.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

use crate::json::{PARAMETERS_VALUES_MAX, Schema};
use crate::value::object;

object! {
    pub struct Tool {
        kind as "type": String,
        function: Function,
    }
}

object! {
    pub struct Function {
        name: String,
        description: String,
        parameters: Schema<PARAMETERS_VALUES_MAX>,
        strict: bool,
    }
}

/// `tool_choice`: a string, or an object that names a function.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice {
    None,
    Auto,
    Required,
    Object(ChoiceObject),
}

object! {
    pub struct ChoiceObject {
        kind as "type": String,
        function: ChoiceFunction,
    }
}

object! {
    pub struct ChoiceFunction {
        name: String,
    }
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"auto\", \"required\" or an object")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "none" => Ok(ToolChoice::None),
                    "auto" => Ok(ToolChoice::Auto),
                    "required" => Ok(ToolChoice::Required),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
                ChoiceObject::deserialize(MapAccessDeserializer::new(map)).map(ToolChoice::Object)
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

//! JSON that is stored without interpretation. Its size is bounded while it is parsed, so that a short body can't
//! become a large value in memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// Most values in one schema: objects, arrays, strings, numbers.
pub const SCHEMA_VALUES_MAX: usize = 32_768;
/// Most values in the schema of one tool. A request may have many tools.
pub const PARAMETERS_VALUES_MAX: usize = 8_192;
/// Deepest nesting of objects and arrays in a schema.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Most bytes of all names and strings in one schema.
pub const SCHEMA_TEXT_BYTES_MAX: usize = 524_288;
/// Most entries of `chat_template_kwargs`.
pub const KWARGS_MAX: usize = 32;
/// Most bytes of a name or a string in `chat_template_kwargs`.
pub const KWARG_BYTES_MAX: usize = 1_024;

/// A JSON Schema: an object, with its names in their order. This crate doesn't interpret it.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema<const VALUES: usize = SCHEMA_VALUES_MAX> {
    pub value: Value,
    /// The schema's original text, if it has numbers whose digits `value` may not all keep.
    pub text: Option<Box<str>>,
}

impl<const VALUES: usize> Schema<VALUES> {
    /// The schema as JSON text, with all digits of its numbers.
    pub fn exact(self) -> String {
        self.text
            .map_or_else(|| self.value.to_string(), String::from)
    }
}

impl<'de, const VALUES: usize> Deserialize<'de> for Schema<VALUES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let budget = Budget {
            values_max: VALUES,
            values: Cell::new(VALUES),
            text_bytes: Cell::new(SCHEMA_TEXT_BYTES_MAX),
            has_fractions: Cell::new(false),
        };
        let seed = Bounded {
            budget: &budget,
            depth: SCHEMA_DEPTH_MAX,
        };
        let read = seed.deserialize(&mut serde_json::Deserializer::from_str(raw.get()));
        match read.map_err(|error| D::Error::custom(without_place(&error)))? {
            value @ Value::Object(_) => Ok(Schema {
                value,
                text: budget.has_fractions.get().then(|| raw.get().into()),
            }),
            _ => Err(D::Error::custom("a JSON Schema must be an object")),
        }
    }
}

/// The error's message without the line and column, which count from the beginning of a part, not of the body.
pub(crate) fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}

/// The size that a schema may still grow by.
struct Budget {
    values_max: usize,
    values: Cell<usize>,
    text_bytes: Cell<usize>,
    /// Whether the schema has numbers with a fraction, or too large for 64 bits.
    has_fractions: Cell<bool>,
}

impl Budget {
    fn value<E: Error>(&self) -> Result<(), E> {
        let left = self.values.get().checked_sub(1).ok_or_else(|| {
            E::custom(format!(
                "a schema may have at most {} values",
                self.values_max
            ))
        })?;
        self.values.set(left);
        Ok(())
    }

    fn text<E: Error>(&self, text: &str) -> Result<(), E> {
        let left = self.text_bytes.get().checked_sub(text.len());
        let left = left.ok_or_else(|| {
            E::custom(format!(
                "the strings of a schema may have at most {SCHEMA_TEXT_BYTES_MAX} bytes"
            ))
        })?;
        self.text_bytes.set(left);
        Ok(())
    }
}

/// Deserializes a value within a budget.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    budget: &'a Budget,
    depth: usize,
}

impl Bounded<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| {
            E::custom(format!(
                "a schema may be at most {SCHEMA_DEPTH_MAX} levels deep"
            ))
        })?;
        Ok(Bounded { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.budget.value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.budget.has_fractions.set(true);
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.budget.text(text)?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element_seed(inner)? {
            entries.push(entry);
        }
        Ok(Value::Array(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.budget.text(&name)?;
            let value = map.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// `chat_template_kwargs`: names with scalar values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kwargs(pub BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Kwargs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Kwargs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of plain values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kwargs, A::Error> {
                let mut kwargs = BTreeMap::new();
                while let Some((name, Scalar(value))) = map.next_entry::<String, Scalar>()? {
                    if name.len() > KWARG_BYTES_MAX || kwargs.len() == KWARGS_MAX {
                        return Err(A::Error::custom(format!(
                            "at most {KWARGS_MAX} entries are allowed, with names of at most {KWARG_BYTES_MAX} bytes"
                        )));
                    }
                    kwargs.insert(name, value);
                }
                Ok(Kwargs(kwargs))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A JSON value that is neither an array nor an object.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Plain;

        impl Visitor<'_> for Plain {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number, a boolean or null")
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar(Value::Null))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                if text.len() > KWARG_BYTES_MAX {
                    let what = Unexpected::Other("a long string");
                    return Err(E::invalid_value(what, &self));
                }
                Ok(Scalar(text.into()))
            }
        }

        deserializer.deserialize_any(Plain)
    }
}

//! The fields of a request with unknown names: just enough of their values to tell whether they ask for anything.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most unknown fields that are stored. Real clients send far fewer.
const OTHERS_MAX: usize = 1024;
/// Most bytes of a stored name, and of a stored text.
const TEXT_BYTES_MAX: usize = 64;

/// The unknown fields by their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Others(BTreeMap<String, Outline>);

impl Others {
    pub(crate) fn add(&mut self, name: String, value: Outline) {
        if name.len() <= TEXT_BYTES_MAX && self.0.len() < OTHERS_MAX {
            self.0.insert(name, value);
        }
    }

    pub fn get(&self, name: &str) -> Option<&Outline> {
        self.0.get(name)
    }
}

/// A value without its contents.
#[derive(Debug, Clone, PartialEq)]
pub enum Outline {
    Null,
    Bool(bool),
    Number(f64),
    /// `None` if the text is longer than 64 bytes.
    Text(Option<String>),
    /// An array or an object without entries.
    Empty,
    /// An array or an object with entries.
    Filled,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }

            fn visit_unit<E: Error>(self) -> Result<Outline, E> {
                Ok(Outline::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Outline, E> {
                Ok(Outline::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Outline, E> {
                Ok(Outline::Number(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Outline, E> {
                Ok(Outline::Number(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Outline, E> {
                Ok(Outline::Number(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Outline, E> {
                let short = text.len() <= TEXT_BYTES_MAX;
                Ok(Outline::Text(short.then(|| text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outline, A::Error> {
                let mut outline = Outline::Empty;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    outline = Outline::Filled;
                }
                Ok(outline)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let mut outline = Outline::Empty;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    outline = Outline::Filled;
                }
                Ok(outline)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines() {
        let check = |json: &str, expected: Outline| {
            assert_eq!(
                serde_json::from_str::<Outline>(json).unwrap(),
                expected,
                "{json}"
            );
        };
        check("null", Outline::Null);
        check("true", Outline::Bool(true));
        check("-1", Outline::Number(-1.0));
        check(
            "18446744073709551615",
            Outline::Number(18_446_744_073_709_551_615.0),
        );
        check("0.5", Outline::Number(0.5));
        check("\"é\"", Outline::Text(Some("é".to_owned())));
        check(&format!("\"{}\"", "x".repeat(65)), Outline::Text(None));
        check("[]", Outline::Empty);
        check("[[null]]", Outline::Filled);
        check("{}", Outline::Empty);
        check("{\"a\":{}}", Outline::Filled);
    }

    #[test]
    fn few_are_kept() {
        let mut others = Others::default();
        for i in 0..2 * OTHERS_MAX {
            others.add(i.to_string(), Outline::Null);
        }
        others.add("x".repeat(65), Outline::Null);
        assert_eq!(others.0.len(), OTHERS_MAX);
        assert_eq!(others.get("0"), Some(&Outline::Null));
    }
}

//! Conversions from JSON values to fields of a request.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::without_place;

/// Declares an object all of whose fields are optional; `+name: Type` adds a group of [`fields`], and `..name` collects
/// fields with unknown names. The last occurrence of a repeated field counts, as in the JSON parsers of other languages;
/// serde's own derive would refuse the repetition.
macro_rules! object {
    ($(#[$meta:meta])* pub $(($scope:tt))? struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident $(as $json:literal)?: $type:ty,)*
        $(+$group:ident: $group_type:ty,)*
        $(..$others:ident)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub $(($scope))? struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>,)*
            $(pub $group: $group_type,)*
            $(
                /// Fields with unknown names.
                pub $others: $crate::others::Others,
            )?
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $($crate::value::name!($field $($json)?) => object.$field = map.next_value()?,)*
                                $(key if object.$group.read(key, &mut map)? => {})*
                                _ => $crate::value::other!(object, key, map $($others)?),
                            }
                        }
                        Ok(object)
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

/// Declares a group of optional fields that several objects have.
macro_rules! fields {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>,)*
        }

        impl $name {
            /// Reads the value of a field, if the group has one with this name.
            pub(crate) fn read<'de, A: serde::de::MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
                match key {
                    $(stringify!($field) => self.$field = map.next_value()?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

/// The name of a field in JSON: the Rust field's name, or the literal that is given.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}

/// Reads a field with an unknown name: into the object's `..name` if it has one, else the value is skipped.
macro_rules! other {
    ($object:ident, $key:ident, $map:ident) => {
        drop($map.next_value::<serde::de::IgnoredAny>()?)
    };
    ($object:ident, $key:ident, $map:ident $others:ident) => {
        $object.$others.add($key, $map.next_value()?)
    };
}

pub(crate) use {fields, name, object, other};

/// An integer in JSON. `2.0` is one, `1.5` and `"2"` are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer(pub i64);

/// The number up to which every integer is exact as `f64`: 2^53.
const F64_EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<'a>(&'a str);

        impl Visitor<'_> for Whole<'_> {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                i64::try_from(value).map(Integer).map_err(|_| {
                    E::custom(format!("{value} is too large for an integer of 64 bits"))
                })
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
                if value.fract() == 0.0 && value.abs() <= F64_EXACT_MAX {
                    return Ok(Integer(value as i64));
                }
                let what = if value.fract() == 0.0 {
                    "out of range"
                } else {
                    "not whole"
                };
                // The value may be another one than what was written.
                Err(E::custom(format!(
                    "expected an integer, but {} is {what}",
                    self.0
                )))
            }
        }

        let raw = <&RawValue>::deserialize(deserializer)?;
        serde_json::Deserializer::from_str(raw.get())
            .deserialize_any(Whole(raw.get()))
            .map_err(|error| D::Error::custom(without_place(&error)))
    }
}

/// An array of at most `MAX` entries. A longer one is refused while it is parsed, so that a short body can't become a
/// large value in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() == MAX {
                        return Err(A::Error::custom(format!(
                            "at most {MAX} entries are allowed"
                        )));
                    }
                    entries.push(entry);
                }
                Ok(entries)
            }
        }

        deserializer
            .deserialize_seq(Entries::<T, MAX>(PhantomData))
            .map(List)
    }
}

/// A value of which only the presence matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Anything)
    }
}

//! `prompt`: a string, strings, token ids, or arrays of token ids.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// Most prompts of one request.
pub const PROMPTS_MAX: usize = 1024;

pub type Prompts = PromptsOf<PROMPTS_MAX>;

/// At most `MAX` prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptsOf<const MAX: usize> {
    /// A text or several texts; empty if the array was empty.
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

impl<'de, const MAX: usize> Deserialize<'de> for PromptsOf<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyForm<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for AnyForm<MAX> {
            type Value = PromptsOf<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, of token ids or of arrays of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PromptsOf<MAX>, E> {
                Ok(PromptsOf::Texts(vec![text.to_owned()]))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<PromptsOf<MAX>, E> {
                Ok(PromptsOf::Texts(vec![text]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptsOf<MAX>, A::Error> {
                match seq.next_element()? {
                    None => Ok(PromptsOf::Texts(Vec::new())),
                    Some(Entry::Text(first)) => rest(first, seq, MAX).map(PromptsOf::Texts),
                    Some(Entry::Tokens(first)) => rest(first, seq, MAX).map(PromptsOf::Tokens),
                    // The number of tokens is bounded by the size of the body.
                    Some(Entry::Token(first)) => {
                        rest(first, seq, usize::MAX).map(|tokens| PromptsOf::Tokens(vec![tokens]))
                    }
                }
            }
        }

        deserializer.deserialize_any(AnyForm::<MAX>)
    }
}

/// The entries after the first. All must be of the first one's kind.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut seq: A,
    max: usize,
) -> Result<Vec<T>, A::Error> {
    let mut entries = vec![first];
    while let Some(entry) = seq.next_element()? {
        if entries.len() == max {
            return Err(A::Error::custom(format!(
                "at most {max} of them are allowed"
            )));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The first entry of an array, which decides the form of the whole prompt.
enum Entry {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyEntry;

        impl<'de> Visitor<'de> for AnyEntry {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Entry, E> {
                token(id).map(Entry::Token)
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Entry, E> {
                token(id).map(Entry::Token)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Entry, A::Error> {
                let tokens = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(Entry::Tokens(tokens))
            }
        }

        deserializer.deserialize_any(AnyEntry)
    }
}

fn token<I: TryInto<u32> + fmt::Display + Copy, E: Error>(id: I) -> Result<u32, E> {
    id.try_into()
        .map_err(|_| E::custom(format!("{id} is not a token id")))
}

//! Fields that chat completions and plain completions share.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::value::{Integer, List, fields, object};

/// Most entries of `stop` that are parsed; the number that is allowed is smaller.
const STOPS_READ_MAX: usize = 64;
/// Most entries of `logit_bias` that are parsed; the number that is allowed is smaller.
const BIASES_READ_MAX: usize = 4096;
/// Most entries of `stop_token_ids` that are parsed; the number that is allowed is smaller.
const STOP_TOKENS_READ_MAX: usize = 4096;
/// Most entries of `bad_words` that are parsed; the number that is allowed is smaller.
const BAD_WORDS_READ_MAX: usize = 1024;

fields! {
    /// The fields that change how tokens are drawn.
    pub struct Sampling {
        temperature: f64,
        top_p: f64,
        top_k: Integer,
        min_p: f64,
        presence_penalty: f64,
        frequency_penalty: f64,
        repetition_penalty: f64,
        logit_bias: LogitBias,
        seed: Integer,
    }
}

fields! {
    /// Parameters that vLLM adds to OpenAI's.
    pub struct Extensions {
        ignore_eos: bool,
        min_tokens: Integer,
        stop_token_ids: List<u32, STOP_TOKENS_READ_MAX>,
        include_stop_str_in_output: bool,
        skip_special_tokens: bool,
        allowed_token_ids: Vec<u32>,
        bad_words: List<String, BAD_WORDS_READ_MAX>,
        truncate_prompt_tokens: Integer,
        truncation_side: String,
        prompt_logprobs: Integer,
        return_token_ids: bool,
    }
}

object! {
    pub struct StreamOptions {
        include_usage: bool,
        ..others
    }
}

/// `stop`: a string or an array of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop(pub Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;

        impl<'de> Visitor<'de> for Strings {
            type Value = Stop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
                let mut strings = Vec::new();
                while let Some(string) = seq.next_element()? {
                    if strings.len() == STOPS_READ_MAX {
                        return Err(A::Error::custom("too many stop strings"));
                    }
                    strings.push(string);
                }
                Ok(Stop(strings))
            }
        }

        deserializer.deserialize_any(Strings)
    }
}

/// `logit_bias`: biases by token id. Ids are strings, as all keys of JSON; some clients send the biases as strings,
/// too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogitBias(pub BTreeMap<String, f64>);

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Biases;

        impl<'de> Visitor<'de> for Biases {
            type Value = LogitBias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of token ids and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogitBias, A::Error> {
                let mut biases = BTreeMap::new();
                while let Some((token, Bias(bias))) = map.next_entry::<String, Bias>()? {
                    if biases.len() == BIASES_READ_MAX {
                        return Err(A::Error::custom("logit_bias has too many entries"));
                    }
                    biases.insert(token, bias);
                }
                Ok(LogitBias(biases))
            }
        }

        deserializer.deserialize_map(Biases)
    }
}

/// A number, or a string with a number's text.
struct Bias(f64);

impl<'de> Deserialize<'de> for Bias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl Visitor<'_> for Value {
            type Value = Bias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Bias, E> {
                Ok(Bias(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Bias, E> {
                Ok(Bias(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Bias, E> {
                Ok(Bias(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bias, E> {
                // Rust also parses "inf" and "nan", which aren't JSON numbers.
                let number = text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite());
                number
                    .map(Bias)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Value)
    }
}

//! A single value: read from TOML or from an environment variable, and checked against its key as far as the schema says.

use serde_json::{Value, json};
use toml::de::DeValue;

use super::keys::{Key, Kind};

/// Parses an environment variable.
pub(super) fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    let value = match &key.kind {
        Kind::Whole { .. } => text.parse::<u64>().ok().map(Value::from),
        Kind::Flag => match text {
            "true" | "1" => Some(json!(true)),
            "false" | "0" => Some(json!(false)),
            _ => None,
        },
        Kind::List(_) if text.trim_start().starts_with('[') => {
            let list = DeValue::parse(text.trim()).ok();
            list.and_then(|list| from_toml(list.get_ref()).ok())
        }
        Kind::List(_) => {
            let words = text.split(',').map(str::trim);
            Some(words.filter(|word| !word.is_empty()).collect())
        }
        Kind::Text | Kind::Choice(_) => Some(json!(text)),
    };
    checked(key, value.unwrap_or_else(|| json!(text)))
}

/// The value if it fits the key's schema; otherwise an error text.
pub(super) fn checked(key: &Key, value: Value) -> Result<Value, String> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_one_of = |words: &[String], value: &Value| words.iter().any(|word| value == word);
    let fits = match &key.kind {
        Kind::Whole { min, max } => value
            .as_u64()
            .is_some_and(|number| (*min..=*max).contains(&number)),
        Kind::Flag => value.is_boolean(),
        Kind::Text => is_text(&value),
        Kind::Choice(words) => is_one_of(words, &value),
        Kind::List(words) => match value.as_array().filter(|list| !list.is_empty()) {
            None => false,
            Some(list) => {
                let fits = |value: &&Value| match words.is_empty() {
                    true => value.is_string(),
                    false => is_one_of(words, value),
                };
                match list.iter().find(|value| !fits(value)) {
                    Some(other) => return Err(wrong(key, &shown(other))),
                    None => true,
                }
            }
        },
    };
    match fits {
        true => Ok(value),
        false => Err(wrong(key, &shown(&value))),
    }
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}

pub(super) fn wrong(key: &Key, found: &str) -> String {
    let found = match key.secret {
        true => "something else",
        false => found,
    };
    format!("{} must be {}, not {found}", key.path, key.expected)
}

/// The value, or the description of one that no key has.
pub(super) fn from_toml(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(json!(text)),
        DeValue::Boolean(flag) => Ok(json!(flag)),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let parsed = u64::from_str_radix(digits.trim_start_matches('+'), number.radix());
            parsed.map(Value::from).map_err(|_| digits.to_owned())
        }
        DeValue::Array(values) => values
            .iter()
            .map(|value| from_toml(value.get_ref()))
            .collect(),
        DeValue::Float(number) => Err(number.as_str().to_owned()),
        DeValue::Datetime(_) | DeValue::Table(_) => Err(format!("a {}", value.type_str())),
    }
}

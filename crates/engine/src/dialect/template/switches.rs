//! `chat_template_kwargs`: what callers may tell a template beside their conversation.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::Value as Json;

use crate::request::Invalid;

/// The switches that templates of the field document. All other names are refused: a caller has no
/// access to what a template is given otherwise.
const NAMES: [&str; 8] = [
    "clear_thinking",
    "enable_thinking",
    "keep_past_thinking",
    "preserve_thinking",
    "reasoning_effort",
    "thinking",
    "thinking_budget",
    "tools_in_user_message",
];

/// Characters of a value that is a text, as `low` is.
const TEXT_CHARS_MAX: usize = 32;

/// What the template gets to see of them.
pub(super) fn checked(kwargs: &BTreeMap<String, Json>) -> Result<BTreeMap<String, Value>, Invalid> {
    let mut switches = BTreeMap::new();
    for (name, value) in kwargs {
        if !NAMES.contains(&name.as_str()) {
            let message = format!("chat_template_kwargs may only have {}", NAMES.join(", "));
            return Err(Invalid::new("chat_template_kwargs", message));
        }
        match value {
            Json::Null => continue,
            Json::Bool(_) | Json::Number(_) => {}
            Json::String(text) if text.chars().count() <= TEXT_CHARS_MAX => {}
            Json::String(_) | Json::Array(_) | Json::Object(_) => {
                let message = format!(
                    "{name} must be a boolean, a number, or a text of at most {TEXT_CHARS_MAX} characters"
                );
                return Err(Invalid::new(
                    format!("chat_template_kwargs.{name}"),
                    message,
                ));
            }
        }
        switches.insert(name.clone(), Value::from(Serde(value)));
    }
    // Some families have the one name, some the other.
    if let Some(thinking) = switches.get("enable_thinking").cloned() {
        switches.entry("thinking".to_owned()).or_insert(thinking);
    }
    Ok(switches)
}

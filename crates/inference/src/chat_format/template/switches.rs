//! `chat_template_kwargs`: variables that callers may pass to a template.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::Value as Json;
use weir_engine::request::Invalid;

/// The variables that widely used templates document. All other names are refused, so that callers can't replace the
/// other variables of a template.
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

/// Limit on the characters of a text value, such as `low`.
const TEXT_CHARS_MAX: usize = 32;

/// Checks callers' variables, and returns those that the template gets.
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
    // Some families use one name, some the other.
    if let Some(thinking) = switches.get("enable_thinking").cloned() {
        switches.entry("thinking".to_owned()).or_insert(thinking);
    }
    Ok(switches)
}

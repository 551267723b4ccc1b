//! Turns the arguments of calls into objects, over which some templates iterate.

use serde_json::{Value, json};
use weir_engine::request::Conversation;

use super::cut_json;

/// The name of an argument that has none of its own.
const UNNAMED: &str = "arguments";

/// The conversation with arguments that are objects; `None` if all of them are already.
pub(in crate::chat_format) fn with_objects(conversation: &Conversation) -> Option<Conversation> {
    let mut changed: Option<Conversation> = None;
    for (i, message) in conversation.messages.iter().enumerate() {
        for (j, call) in message.tool_calls.iter().enumerate() {
            if let Some(object) = object(&call.arguments) {
                let changed = changed.get_or_insert_with(|| conversation.clone());
                changed.messages[i].tool_calls[j].arguments = object.to_string();
            }
        }
    }
    changed
}

/// An object in place of arguments that aren't one; `None` if they are.
fn object(arguments: &str) -> Option<Value> {
    let object = match serde_json::from_str(arguments) {
        Ok(Value::Object(_)) => return None,
        Ok(value) => of_value(value),
        Err(_) if arguments.trim().is_empty() => json!({}),
        Err(_) => match cut_json::read(arguments) {
            Some(value) => of_value(value),
            None => json!({UNNAMED: arguments}),
        },
    };
    Some(object)
}

fn of_value(value: Value) -> Value {
    match value {
        Value::Object(_) => value,
        Value::Null => json!({}),
        // Some clients encode arguments twice.
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => json!({UNNAMED: text}),
        },
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => json!({UNNAMED: value}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_objects() {
        let check = |arguments: &str, expected: Value| {
            assert_eq!(object(arguments), Some(expected), "{arguments}");
        };
        check("", json!({}));
        check(" \n", json!({}));
        check("null", json!({}));
        check("[1, 2]", json!({"arguments": [1, 2]}));
        check("\"Bern\"", json!({"arguments": "Bern"}));
        check("7", json!({"arguments": 7}));
        check("{\"city\": \"Be", json!({"city": "Be"}));
        check("\"{\\\"city\\\": \\\"Bern\\\"}\"", json!({"city": "Bern"}));
        check("city=Bern", json!({"arguments": "city=Bern"}));
        check(
            "{\"city\": \"Bern\"} and more",
            json!({"arguments": "{\"city\": \"Bern\"} and more"}),
        );
        assert_eq!(object("{\"city\": 1}"), None);
        assert_eq!(object(" {} "), None);
    }
}

//! Visits every text in a conversation that a caller wrote.

use std::sync::Arc;

use serde_json::{Map, Value};
use weir_engine::request::{Conversation, Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An assistant's content, which may have marks of its reasoning in it.
    AssistantContent,
    Elsewhere,
}

/// Calls `replace` for each text. Returns the conversation with the replacements; `None` if there are none.
pub(super) fn map(
    conversation: &Conversation,
    replace: &mut dyn FnMut(Place, &str) -> Option<String>,
) -> Option<Conversation> {
    let mut changed: Option<Conversation> = None;
    macro_rules! put {
        ($($field:tt)+) => {
            |new| changed.get_or_insert_with(|| conversation.clone()).$($field)+ = new
        };
    }
    for (i, message) in conversation.messages.iter().enumerate() {
        let place = match message.role {
            Role::Assistant => Place::AssistantContent,
            Role::System | Role::Developer | Role::User | Role::Tool => Place::Elsewhere,
        };
        let content = message.content.as_deref();
        let new = content.and_then(|text| replace(place, text));
        new.map(Some).map(put!(messages[i].content));
        let mut optional = |text: &Option<String>| {
            let text = text.as_deref();
            text.and_then(|text| replace(Place::Elsewhere, text))
                .map(Some)
        };
        optional(&message.reasoning).map(put!(messages[i].reasoning));
        optional(&message.name).map(put!(messages[i].name));
        optional(&message.tool_call_id).map(put!(messages[i].tool_call_id));
        for (j, call) in message.tool_calls.iter().enumerate() {
            replace(Place::Elsewhere, &call.id).map(put!(messages[i].tool_calls[j].id));
            replace(Place::Elsewhere, &call.name).map(put!(messages[i].tool_calls[j].name));
            arguments(&call.arguments, replace).map(put!(messages[i].tool_calls[j].arguments));
        }
    }
    for (i, tool) in conversation.tools.tools.iter().enumerate() {
        replace(Place::Elsewhere, &tool.name).map(put!(tools.tools[i].name));
        let description = tool.description.as_deref();
        let new = description.and_then(|text| replace(Place::Elsewhere, text));
        new.map(Some).map(put!(tools.tools[i].description));
        let parameters = tool.parameters.as_deref();
        let new = parameters.and_then(|schema| json(schema, replace));
        new.map(|schema| Some(Arc::new(schema)))
            .map(put!(tools.tools[i].parameters));
    }
    for (name, value) in &conversation.template_kwargs {
        if let Some(new) = json(value, replace) {
            let changed = changed.get_or_insert_with(|| conversation.clone());
            changed.template_kwargs.insert(name.clone(), new);
        }
    }
    changed
}

/// Replaces in a call's arguments: in their text and, if they are JSON with escapes, in the decoded strings, since
/// `\u003c` is `<`.
fn arguments(text: &str, replace: &mut dyn FnMut(Place, &str) -> Option<String>) -> Option<String> {
    let new = replace(Place::Elsewhere, text);
    let now = new.as_deref().unwrap_or(text);
    if !now.contains('\\') {
        return new;
    }
    let decoded: Option<Value> = serde_json::from_str(now).ok();
    let replaced = decoded.and_then(|decoded| json(&decoded, replace));
    replaced.map(|value| value.to_string()).or(new)
}

fn json(value: &Value, replace: &mut dyn FnMut(Place, &str) -> Option<String>) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
        Value::String(text) => replace(Place::Elsewhere, text).map(Value::String),
        Value::Array(items) => {
            let new: Vec<_> = items.iter().map(|item| json(item, replace)).collect();
            new.iter().any(Option::is_some).then(|| {
                let pairs = new.into_iter().zip(items);
                pairs
                    .map(|(new, old)| new.unwrap_or_else(|| old.clone()))
                    .collect()
            })
        }
        Value::Object(entries) => {
            let new: Vec<_> = entries
                .iter()
                .map(|(name, value)| (replace(Place::Elsewhere, name), json(value, replace)))
                .collect();
            let changed =
                |(name, value): &(Option<String>, Option<Value>)| name.is_some() || value.is_some();
            new.iter().any(changed).then(|| {
                let pairs = new.into_iter().zip(entries);
                let entry = |((name, value), (old_name, old_value)): (
                    (Option<_>, Option<_>),
                    (&String, &Value),
                )| {
                    (
                        name.unwrap_or_else(|| old_name.clone()),
                        value.unwrap_or_else(|| old_value.clone()),
                    )
                };
                Value::Object(Map::from_iter(pairs.map(entry)))
            })
        }
    }
}

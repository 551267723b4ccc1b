//! Puts the roles of messages into an order that templates demand.

use std::collections::{HashSet, VecDeque};

use weir_engine::request::{Message, Role};

use crate::chat_format::generic::append;

/// Separates the texts of messages that are joined.
const PARAGRAPH: &str = "\n\n";
/// Comes before a result that belongs to no call. Qwen 3.5's template would take tags for a result, and then miss a user
/// message.
const RESULT: &str = "Result of a tool:\n";

pub(in crate::chat_format) fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// Joins the system messages at the beginning into one. Later system messages become user messages, in their places.
pub(super) fn one_system(messages: Vec<Message>) -> Vec<Message> {
    let mut changed: Vec<Message> = Vec::with_capacity(messages.len());
    for mut message in messages {
        match changed.last_mut() {
            Some(first) if is_system(first) && is_system(&message) => join(first, message),
            Some(_) if is_system(&message) => {
                message.role = Role::User;
                changed.push(message);
            }
            _ => changed.push(message),
        }
    }
    changed
}

/// Turns the system message into a user message, joined with the user message after it.
pub(super) fn no_system(messages: Vec<Message>) -> Vec<Message> {
    let mut messages = VecDeque::from(messages);
    let Some(mut system) = messages.pop_front_if(|first| is_system(first)) else {
        return messages.into();
    };
    system.role = Role::User;
    match messages.front_mut() {
        Some(user) if user.role == Role::User => {
            let said = std::mem::replace(user, system);
            join(user, said);
        }
        _ => messages.push_front(system),
    }
    messages.into()
}

/// Every call gets a result right after it, an empty one if there is none. A result without a call becomes a user
/// message.
pub(super) fn matched_results(messages: Vec<Message>) -> Vec<Message> {
    let mut changed: Vec<Message> = Vec::with_capacity(messages.len());
    // Ids of calls that have no result yet.
    let mut open: Vec<String> = Vec::new();
    let close = |open: &mut Vec<String>, changed: &mut Vec<Message>| {
        changed.extend(open.drain(..).map(|id| Message {
            tool_call_id: Some(id),
            ..Message::new(Role::Tool, "")
        }));
    };
    for mut message in messages {
        if message.role == Role::Tool {
            let id = message.tool_call_id.as_deref();
            match open.iter().position(|open| Some(open.as_str()) == id) {
                Some(place) => {
                    open.remove(place);
                    changed.push(message);
                }
                None => {
                    close(&mut open, &mut changed);
                    let result = message.content.unwrap_or_default();
                    changed.push(Message::new(Role::User, format!("{RESULT}{result}")));
                }
            }
            continue;
        }
        close(&mut open, &mut changed);
        // A result can't belong to two calls, so a second call with the same id is dropped.
        let mut ids = HashSet::new();
        message
            .tool_calls
            .retain(|call| ids.insert(call.id.clone()));
        open.extend(message.tool_calls.iter().map(|call| call.id.clone()));
        changed.push(message);
    }
    close(&mut open, &mut changed);
    changed
}

/// A user message comes first after the system messages, and consecutive messages of a user or of the assistant are
/// joined. Results of tools don't count as turns.
pub(super) fn alternating(messages: Vec<Message>) -> Vec<Message> {
    let mut changed: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let last = changed.last_mut().filter(|last| {
            let may_join = matches!(message.role, Role::User | Role::Assistant);
            // Calls, and text after their results, are two turns.
            may_join && last.role == message.role && last.tool_calls.is_empty()
        });
        match last {
            Some(last) => join(last, message),
            None => {
                let begins = changed.last().is_none_or(is_system);
                if begins && message.role != Role::User && !is_system(&message) {
                    changed.push(Message::new(Role::User, ""));
                }
                changed.push(message);
            }
        }
    }
    if changed.iter().all(is_system) {
        changed.push(Message::new(Role::User, ""));
    }
    changed
}

pub(super) fn ending_with_user(mut messages: Vec<Message>) -> Vec<Message> {
    if messages
        .last()
        .is_none_or(|last| last.role == Role::Assistant)
    {
        messages.push(Message::new(Role::User, ""));
    }
    messages
}

fn join(first: &mut Message, second: Message) {
    let Message {
        role: _,
        content,
        reasoning,
        name,
        tool_calls,
        tool_call_id: _,
    } = second;
    if let Some(content) = content {
        append(first, &content, PARAGRAPH);
    }
    match (&mut first.reasoning, reasoning) {
        (Some(first), Some(second)) => *first = format!("{first}{PARAGRAPH}{second}"),
        (first, second) => *first = first.take().or(second),
    }
    if first.name != name {
        first.name = None;
    }
    first.tool_calls.extend(tool_calls);
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_engine::request::ToolCall;

    /// Parses messages: `s`ystem, `d`eveloper, `u`ser, `a`ssistant or `t`ool, their text, and the ids of calls in
    /// brackets.
    fn messages(text: &str) -> Vec<Message> {
        let message = |word: &str| {
            let (word, ids) = word.split_once('[').unwrap_or((word, ""));
            let (role, content) = word.split_at(1);
            let role = match role {
                "s" => Role::System,
                "d" => Role::Developer,
                "u" => Role::User,
                "a" => Role::Assistant,
                _ => Role::Tool,
            };
            let ids: Vec<String> = ids
                .split([',', ']'])
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect();
            let mut message = Message::new(role, content);
            match role {
                Role::Tool => message.tool_call_id = ids.into_iter().next(),
                _ => message.tool_calls = ids.into_iter().map(call).collect(),
            }
            message
        };
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(message)
            .collect()
    }

    fn call(id: String) -> ToolCall {
        ToolCall {
            id,
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        }
    }

    fn shown(messages: &[Message]) -> String {
        let show = |message: &Message| {
            let role = match message.role {
                Role::System => "s",
                Role::Developer => "d",
                Role::User => "u",
                Role::Assistant => "a",
                Role::Tool => "t",
            };
            let content = message
                .content
                .as_deref()
                .unwrap_or_default()
                .replace(PARAGRAPH, "+")
                .replace(RESULT, "result:")
                .replace('\n', "");
            let ids = message
                .tool_calls
                .iter()
                .map(|call| &*call.id)
                .chain(message.tool_call_id.as_deref());
            let ids: Vec<&str> = ids.collect();
            let ids = if ids.is_empty() {
                String::new()
            } else {
                format!("[{}]", ids.join(","))
            };
            format!("{role}{content}{ids}")
        };
        messages.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn orders_that_templates_take() {
        type Change = fn(Vec<Message>) -> Vec<Message>;
        let check = |change: Change, text: &str, expected: &str| {
            assert_eq!(shown(&change(messages(text))), expected, "{text}");
        };
        check(
            one_system,
            "s1 d2 s3 u4 s5 a6 d7 s8",
            "s1+2+3 u4 u5 a6 u7 u8",
        );
        check(one_system, "u1 s2", "u1 u2");
        check(no_system, "s1 u2 a3", "u1+2 a3");
        check(no_system, "s1 a2", "u1 a2");
        check(no_system, "u1", "u1");
        check(
            matched_results,
            "u1 a2[x,y] ty[y] tx[x] u3",
            "u1 a2[x,y] ty[y] tx[x] u3",
        );
        check(
            matched_results,
            "u1 a2[x] u3 tx[x]",
            "u1 a2[x] t[x] u3 uresult:x",
        );
        check(
            matched_results,
            "t0[q] u1 a2[x,x] t3[x] t4[x]",
            "uresult:0 u1 a2[x] t3[x] uresult:4",
        );
        check(matched_results, "u1 a2[x]", "u1 a2[x] t[x]");
        check(alternating, "s1 u2 u3 a4 a5 u6", "s1 u2+3 a4+5 u6");
        check(alternating, "a1 u2", "u a1 u2");
        check(alternating, "s1 a2[x] t3[x] a4 a5", "s1 u a2[x] t3[x] a4+5");
        check(alternating, "u1 a2[x] a3", "u1 a2[x] a3");
        check(alternating, "s1", "s1 u");
        check(ending_with_user, "u1 a2", "u1 a2 u");
        check(ending_with_user, "u1 t2[x]", "u1 t2[x]");
    }
}

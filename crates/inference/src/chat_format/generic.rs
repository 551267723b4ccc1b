//! Tool calls for models whose template doesn't support tools: the tools are described in the system message, and calls
//! and results of the history become text. The format is Hermes', on which Qwen was trained, too.

use serde_json::{Value, json};
use weir_engine::request::{Message, Role, Tool, ToolCall, ToolChoice, Tools};

use super::python_json;

/// The conversation in roles that every template has, with the tools described in it.
pub(super) fn messages(messages: &[Message], tools: &Tools, knows_system: bool) -> Vec<Message> {
    let mut messages = plain(messages);
    // A description invites the model to call, so there is none if calls aren't allowed.
    if !tools.tools.is_empty() && tools.choice != ToolChoice::None {
        describe(&mut messages, &tools.tools, knows_system);
    }
    messages
}

/// Turns calls and results into text.
pub(super) fn plain(messages: &[Message]) -> Vec<Message> {
    let mut plain: Vec<Message> = Vec::with_capacity(messages.len());
    // Many templates demand that users and assistants alternate, so a user's message after a result joins the result.
    let mut joins = false;
    for message in messages {
        let mut message = message.clone();
        match message.role {
            Role::Tool => {
                let result = as_response(&message.content.take().unwrap_or_default());
                match plain.last_mut() {
                    Some(last) if joins => append(last, &result, "\n"),
                    _ => plain.push(Message::new(Role::User, result)),
                }
                joins = true;
            }
            Role::User if joins => {
                let last = plain.last_mut().expect("a result is before it");
                append(last, &message.content.unwrap_or_default(), "\n\n");
                joins = false;
            }
            Role::System | Role::Developer | Role::User | Role::Assistant => {
                for call in std::mem::take(&mut message.tool_calls) {
                    append(&mut message, &written(&call), "\n");
                }
                plain.push(message);
                joins = false;
            }
        }
    }
    plain
}

pub(super) fn as_response(result: &str) -> String {
    format!("<tool_response>\n{result}\n</tool_response>")
}

fn written(call: &ToolCall) -> String {
    let arguments = serde_json::from_str(&call.arguments);
    let arguments = arguments.unwrap_or_else(|_| Value::from(call.arguments.as_str()));
    let call = python_json::text(&json!({"name": call.name, "arguments": arguments}));
    format!("<tool_call>\n{call}\n</tool_call>")
}

fn describe(messages: &mut Vec<Message>, tools: &[Tool], knows_system: bool) {
    let description = description(tools);
    let first = if knows_system {
        [Role::System, Role::Developer].as_slice()
    } else {
        &[Role::User]
    };
    match messages.first_mut() {
        Some(message) if first.contains(&message.role) && knows_system => {
            append(message, &description, "\n\n");
        }
        Some(message) if first.contains(&message.role) => {
            let question = message.content.replace(description).unwrap_or_default();
            append(message, &question, "\n\n");
        }
        _ => messages.insert(0, Message::new(first[0], description)),
    }
}

fn description(tools: &[Tool]) -> String {
    let mut text = "You may call one or more functions to assist with the user query.\n\n\
        You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        .to_owned();
    for tool in tools {
        let signature = json!({
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description.as_deref().unwrap_or_default(),
                "parameters": tool.parameters.as_deref().unwrap_or(&json!({
                    "type": "object",
                    "properties": {},
                })),
            },
        });
        text.push_str(&python_json::text(&signature));
        text.push('\n');
    }
    text.push_str(
        "</tools>\n\nFor each function call, return a json object with function name and arguments \
         within <tool_call></tool_call> XML tags:\n<tool_call>\n\
         {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>",
    );
    text
}

pub(super) fn append(message: &mut Message, text: &str, separator: &str) {
    let content = message.content.get_or_insert_default();
    if !content.is_empty() {
        content.push_str(separator);
    }
    content.push_str(text);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn check(messages: Vec<Message>, tools: Tools, knows_system: bool, expected: &str) {
        let shown: Vec<String> = super::messages(&messages, &tools, knows_system)
            .iter()
            .map(|message| {
                assert!(message.tool_calls.is_empty(), "templates may print calls");
                format!(
                    "{:?}: {}",
                    message.role,
                    message.content.as_deref().unwrap()
                )
            })
            .collect();
        assert_eq!(shown.join("\n"), expected);
    }

    fn tools(choice: ToolChoice) -> Tools {
        Tools {
            tools: vec![Tool {
                name: "now".to_owned(),
                description: Some("The \"time\"".to_owned()),
                parameters: Some(Arc::new(json!({"type": "object"}))),
                parameters_text: None,
                strict: false,
            }],
            choice,
            parallel: None,
        }
    }

    const DESCRIBED: &str = r#"You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "now", "description": "The \"time\"", "parameters": {"type": "object"}}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"#;

    #[test]
    fn tools_are_described_where_there_is_a_place() {
        let user = || Message::new(Role::User, "Hi");
        let auto = || tools(ToolChoice::Auto);
        check(
            vec![user()],
            auto(),
            true,
            &format!("System: {DESCRIBED}\nUser: Hi"),
        );
        check(
            vec![user()],
            auto(),
            false,
            &format!("User: {DESCRIBED}\n\nHi"),
        );
        check(
            vec![Message::new(Role::Developer, "Be kind."), user()],
            auto(),
            true,
            &format!("Developer: Be kind.\n\n{DESCRIBED}\nUser: Hi"),
        );
        check(vec![user()], tools(ToolChoice::None), true, "User: Hi");
    }

    #[test]
    fn calls_and_results_become_text() {
        let mut call = Message::new(Role::Assistant, "Let me see.");
        for (id, arguments) in [("a", r#"{"b":1,"a":[2]}"#), ("b", "broken")] {
            call.tool_calls.push(ToolCall {
                id: id.to_owned(),
                name: "now".to_owned(),
                arguments: arguments.to_owned(),
            });
        }
        let result = |text: &str| Message::new(Role::Tool, text);
        let user = |text: &str| Message::new(Role::User, text);
        let messages = vec![
            user("?"),
            call,
            result("12:00"),
            result(""),
            user("So?"),
            user("!"),
        ];
        let expected = r#"User: ?
Assistant: Let me see.
<tool_call>
{"name": "now", "arguments": {"b": 1, "a": [2]}}
</tool_call>
<tool_call>
{"name": "now", "arguments": "broken"}
</tool_call>
User: <tool_response>
12:00
</tool_response>
<tool_response>

</tool_response>

So?
User: !"#;
        check(messages, Tools::default(), true, expected);
    }
}

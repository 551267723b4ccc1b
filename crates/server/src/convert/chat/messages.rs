//! The messages of a conversation.

use weir_api::List;
use weir_api::chat::{self, Content, Part};
use weir_engine::request::{Message, Role, ToolCall};

use crate::convert::{NAME_CHARS_MAX, missing};
use crate::error::ApiError;

/// The messages, and whether the last one is the beginning of the answer (`prefix` or `partial`).
pub(in crate::convert) fn messages<const MAX: usize>(
    model: &str,
    messages: Option<List<chat::Message, MAX>>,
) -> Result<(Vec<Message>, bool), ApiError> {
    let List(messages) = messages.ok_or_else(|| missing("messages"))?;
    let Some(last) = messages.last() else {
        return Err(ApiError::invalid(
            "messages",
            "messages must have at least one message",
        ));
    };
    let is_prefix = last.prefix == Some(true) || last.partial == Some(true);
    let messages = messages.into_iter().enumerate();
    let messages = messages.map(|(index, message)| self::message(model, index, message));
    Ok((messages.collect::<Result<_, _>>()?, is_prefix))
}

fn message(model: &str, index: usize, message: chat::Message) -> Result<Message, ApiError> {
    let invalid = |field: &str, what: &str| {
        let param = format!("messages.{index}.{field}");
        let text = format!("{param} {what}");
        Err(ApiError::invalid(param, text))
    };
    let Some(role) = message.role.map(role) else {
        return invalid("role", "is required");
    };
    if message
        .name
        .as_ref()
        .is_some_and(|name| name.chars().count() > NAME_CHARS_MAX)
    {
        return invalid(
            "name",
            &format!("must have at most {NAME_CHARS_MAX} characters"),
        );
    }
    let tool_calls = message
        .tool_calls
        .map(|List(calls)| calls)
        .unwrap_or_default();
    if role != Role::Assistant && !tool_calls.is_empty() {
        return invalid("tool_calls", "is only allowed in an assistant's message");
    }
    if role == Role::Tool && message.tool_call_id.is_none() {
        return invalid("tool_call_id", "is required in a tool's message");
    }
    let content = match message.content {
        None => None,
        Some(Content::Text(text)) => Some(text),
        Some(Content::Parts(parts)) => Some(joined(model, index, parts)?),
    };
    let reasoning = message.reasoning_content.or(message.reasoning);
    // An assistant's message without content is allowed with tool calls, a refusal or reasoning: an answer that was cut
    // off may consist of reasoning alone.
    let says_otherwise = role == Role::Assistant
        && (!tool_calls.is_empty() || message.refusal.is_some() || reasoning.is_some());
    if content.is_none() && !says_otherwise {
        return invalid("content", "is required");
    }
    let tool_calls = tool_calls.into_iter().map(tool_call).collect();
    Ok(Message {
        role,
        content: content.or(message.refusal),
        reasoning,
        name: message.name,
        tool_calls,
        tool_call_id: message.tool_call_id,
    })
}

fn role(role: chat::Role) -> Role {
    match role {
        chat::Role::System => Role::System,
        chat::Role::Developer => Role::Developer,
        chat::Role::User => Role::User,
        chat::Role::Assistant => Role::Assistant,
        chat::Role::Tool => Role::Tool,
    }
}

fn tool_call(
    chat::ToolCall {
        id,
        name,
        arguments,
    }: chat::ToolCall,
) -> ToolCall {
    ToolCall {
        id,
        name,
        arguments,
    }
}

/// Joins text parts with line breaks, as vLLM does.
fn joined(model: &str, message: usize, parts: Vec<Part>) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let feature = match part {
            Part::Text(text) => {
                texts.push(text);
                continue;
            }
            Part::Image => "image-input",
            Part::Audio => "audio-input",
            Part::Video => "video-input",
            Part::File => "file-input",
        };
        return Err(ApiError::unsupported(
            model,
            feature,
            format!("messages.{message}.content.{index}"),
        ));
    }
    Ok(texts.join("\n"))
}

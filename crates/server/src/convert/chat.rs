//! Chat completions.

use weir_api::chat::{self, Content, Part, ToolChoice};
use weir_api::{Integer, List};
use weir_engine::Request;
use weir_engine::request::{
    Input, Invalid, Logprobs, Message, OutputLimit, Overflow, Role, ToolCall,
};

use super::{
    Asked, Shown, Starts, choices, max_tokens, missing, refuse_upstreams, reply, sampling,
    spelling, stop,
};
use crate::error::ApiError;

const NAME_CHARS_MAX: usize = 64;

pub(crate) fn chat(model: &str, body: chat::Request) -> Result<Asked, ApiError> {
    let unsupported = unsupported(&body)?;
    let logprobs = logprobs(body.logprobs, body.top_logprobs)?;
    let (max_tokens, limit) = max_tokens(body.max_tokens, body.max_completion_tokens, 1)?;
    let asked = Asked {
        limit,
        reply: reply(body.stream, body.stream_options.as_ref())?,
        shown: Shown {
            best: None,
            logprobs: logprobs.map(|_| spelling(body.return_tokens_as_token_ids)),
            starts: Starts::Zero,
        },
        request: Request {
            sampling: sampling!(body)?,
            stop: stop(body.stop)?,
            choices: choices(body.n)?,
            output: OutputLimit {
                tokens: max_tokens,
                overflow: Overflow::Lower,
            },
            logprobs,
            ..Request::new(Input::Chat(messages(model, body.messages)?.into()))
        },
    };
    match unsupported {
        None => Ok(asked),
        Some((param, feature)) => Err(ApiError::unsupported(model, feature, param)),
    }
}

fn messages<const MAX: usize>(
    model: &str,
    messages: Option<List<chat::Message, MAX>>,
) -> Result<Vec<Message>, ApiError> {
    let List(messages) = messages.ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "messages must have at least one message",
        ));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| self::message(model, index, message))
        .collect()
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
    let tool_calls = tool_calls.into_iter().map(tool_call).collect();
    Ok(Message {
        role,
        content,
        reasoning: None,
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

/// Text parts, each on lines of its own, as in vLLM.
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

fn logprobs(wanted: Option<bool>, top: Option<Integer>) -> Result<Option<Logprobs>, Invalid> {
    let logprobs = Logprobs::new("top_logprobs", top.map_or(0, |Integer(top)| top))?;
    match wanted {
        Some(true) => Ok(Some(logprobs)),
        Some(false) | None if logprobs.top() > 0 => Err(Invalid::new(
            "top_logprobs",
            "top_logprobs is only allowed with logprobs",
        )),
        Some(false) | None => Ok(None),
    }
}

/// The first field that would change the answer, but can't be honoured, and the feature it needs.
/// All of them are checked for their ranges first.
fn unsupported(body: &chat::Request) -> Result<Option<(&'static str, &'static str)>, Invalid> {
    refuse_upstreams(body.api_base, body.base_url)?;
    let structured = structured(body.response_format.as_ref())?;
    let some = |list: Option<&List<_, _>>| list.is_some_and(|List(entries)| !entries.is_empty());
    let calls = |choice: Option<&ToolChoice>| {
        matches!(choice, Some(ToolChoice::Required | ToolChoice::Named))
    };
    let speaks = body
        .modalities
        .as_ref()
        .is_some_and(|List(kinds)| kinds.iter().any(|kind| kind != "text"));
    let fields = [
        (some(body.tools.as_ref()), "tools", "function-calling"),
        (
            some(body.functions.as_ref()),
            "functions",
            "function-calling",
        ),
        (
            calls(body.tool_choice.as_ref()),
            "tool_choice",
            "function-calling",
        ),
        (
            calls(body.function_call.as_ref()),
            "function_call",
            "function-calling",
        ),
        (structured, "response_format", "structured-outputs"),
        (speaks, "modalities", "audio-output"),
        (body.audio.is_some(), "audio", "audio-output"),
        (
            body.web_search_options.is_some(),
            "web_search_options",
            "web-search",
        ),
    ];
    Ok(fields
        .into_iter()
        .find(|&(asked, ..)| asked)
        .map(|(_, param, feature)| (param, feature)))
}

fn structured(format: Option<&chat::ResponseFormat>) -> Result<bool, Invalid> {
    let Some(format) = format else {
        return Ok(false);
    };
    match format.kind.as_deref() {
        Some("text") => Ok(false),
        Some("json_object" | "json_schema") => Ok(true),
        _ => Err(Invalid::new(
            "response_format.type",
            "response_format.type must be one of text, json_object, json_schema",
        )),
    }
}

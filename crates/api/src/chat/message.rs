//! Messages of a conversation, as callers send them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor, value::SeqAccessDeserializer};

use crate::value::{List, object};

/// Most content parts of one message.
const PARTS_MAX: usize = 65_536;
/// Most tool calls in one message.
const TOOL_CALLS_MAX: usize = 1024;

object! {
    pub struct Message {
        role: Role,
        content: Content,
        name: String,
        tool_calls: List<ToolCall, TOOL_CALLS_MAX>,
        tool_call_id: String,
        /// Whether the message is the beginning of the answer: `prefix` is the field of DeepSeek and Mistral, `partial`
        /// that of Moonshot and Alibaba.
        prefix: bool,
        partial: bool,
        /// The text by which the assistant refused to answer.
        refusal: String,
        /// The assistant's reasoning, under either of the names by which clients send it back.
        reasoning_content: String,
        reasoning: String,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(role: String) -> Result<Self, String> {
        match role.as_str() {
            "system" => Ok(Role::System),
            "developer" => Ok(Role::Developer),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" => Ok(Role::Tool),
            _ => Err("role must be one of system, developer, user, assistant, tool".to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;

        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of parts or null")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
                let parts: List<Part, PARTS_MAX> =
                    List::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(Content::Parts(parts.0))
            }
        }

        deserializer.deserialize_any(TextOrParts)
    }
}

/// A part of a message's content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AnyPart")]
pub enum Part {
    /// A part of type `text`, or of type `refusal`, which assistant messages may have.
    Text(String),
    Image,
    Audio,
    Video,
    File,
}

object! {
    /// A part before its type is checked.
    pub(super) struct AnyPart {
        kind as "type": String,
        text: String,
        refusal: String,
    }
}

impl TryFrom<AnyPart> for Part {
    type Error = String;

    fn try_from(part: AnyPart) -> Result<Self, String> {
        let kind = part.kind.ok_or("a part needs a type")?;
        match kind.as_str() {
            "text" => Ok(Part::Text(
                part.text.ok_or("a part of type text needs a text")?,
            )),
            "refusal" => Ok(Part::Text(
                part.refusal
                    .ok_or("a part of type refusal needs a refusal")?,
            )),
            "image_url" => Ok(Part::Image),
            "input_audio" | "audio_url" => Ok(Part::Audio),
            "video_url" => Ok(Part::Video),
            "file" => Ok(Part::File),
            _ => Err(
                "a part's type must be one of text, image_url, input_audio, video_url, file"
                    .to_owned(),
            ),
        }
    }
}

/// A tool call that the assistant made earlier in the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AnyToolCall")]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON text, as the model generated it.
    pub arguments: String,
}

object! {
    pub(super) struct AnyToolCall {
        id: String,
        kind as "type": String,
        function: Function,
    }
}

object! {
    pub(super) struct Function {
        name: String,
        arguments: String,
    }
}

impl TryFrom<AnyToolCall> for ToolCall {
    type Error = String;

    fn try_from(call: AnyToolCall) -> Result<Self, String> {
        if call.kind.is_some_and(|kind| kind != "function") {
            return Err("a tool call's type must be function".to_owned());
        }
        let function = call.function.ok_or("a tool call needs a function")?;
        Ok(ToolCall {
            id: call.id.ok_or("a tool call needs an id")?,
            name: function.name.ok_or("a tool call's function needs a name")?,
            arguments: function
                .arguments
                .ok_or("a tool call's function needs arguments")?,
        })
    }
}

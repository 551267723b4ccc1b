//! A conversation: its messages, the tools that the model may call, and what its template is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Tools,
    /// `chat_template_kwargs`, by names that the template's dialect allows; `enable_thinking` is one.
    pub template_kwargs: BTreeMap<String, Value>,
    pub ending: Ending,
    /// Whether reasoning is told apart from the text, or stays in it between its marks.
    pub separate_reasoning: bool,
}

/// Where a conversation's prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// Where the assistant's next words begin.
    #[default]
    Answer,
    /// Behind the last message: whatever the model makes of it.
    Messages,
    /// Where the last message's text ends, which is an assistant's: the answer goes on with it.
    Continuation,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Conversation {
            messages,
            ..Conversation::default()
        }
    }
}

/// A message of a conversation, as chat templates see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    /// Parts are already joined; `None` is a message without text (an assistant's tool call).
    pub content: Option<String>,
    /// What an assistant thought before it said this: `reasoning_content`.
    pub reasoning: Option<String>,
    pub name: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    pub tool_call_id: Option<String>,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message {
            role,
            content: Some(content.into()),
            reasoning: None,
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A call that the assistant made earlier in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// What the model may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    /// `parallel_tool_calls`: whether an answer may have several calls. If the caller doesn't say, the
    /// model decides; when it must call, only one that has learnt to make several may.
    pub parallel: Option<bool>,
}

impl Tools {
    /// Whether an answer may have calls.
    pub fn callable(&self) -> bool {
        !self.tools.is_empty() && self.choice != ToolChoice::None
    }

    /// Whether calls after the first are none of the caller's wish.
    pub fn one_at_a_time(&self) -> bool {
        self.parallel == Some(false)
    }

    /// Whether an answer must have calls.
    pub fn must_call(&self) -> bool {
        self.callable() && self.choice != ToolChoice::Auto
    }
}

/// A function that the caller can run for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// A JSON Schema of an object; `None` takes no arguments.
    pub parameters: Option<Arc<Value>>,
    /// The schema as it was written, where `parameters` can't hold all digits of its numbers.
    pub parameters_text: Option<Arc<str>>,
    /// Whether the arguments must match the schema also where the model is free to call.
    pub strict: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model sees the tools, but doesn't call them.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one call, and no text.
    Required,
    /// A call of this tool, and no text.
    Named(String),
}

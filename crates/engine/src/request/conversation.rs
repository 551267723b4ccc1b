//! A conversation: its messages, the tools that the model may call, and the options of the chat template.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Tools,
    /// `chat_template_kwargs`, with the names that the chat format allows; `enable_thinking` is one.
    pub template_kwargs: BTreeMap<String, Value>,
    pub ending: Ending,
    /// Whether reasoning is split off the text; otherwise it stays in the text between its marks, such as `<think>`.
    pub separate_reasoning: bool,
}

/// Where a conversation's prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// At the beginning of the assistant's next message (`add_generation_prompt`).
    #[default]
    Answer,
    /// After the last message, with nothing that begins another one.
    Messages,
    /// At the end of the last message's text, which is an assistant's: the answer continues it
    /// (`continue_final_message`).
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
    /// The text; its parts are already joined. `None` is a message without text (an assistant's tool call).
    pub content: Option<String>,
    /// The reasoning behind an assistant's message: `reasoning_content`.
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

/// The tools that the model may call, and whether it must.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    /// `parallel_tool_calls`: whether an answer may have several calls. `None` leaves it to the model; if it must call,
    /// then only a model whose chat format has several calls may make several.
    pub parallel: Option<bool>,
}

impl Tools {
    /// Whether an answer may have calls.
    pub fn callable(&self) -> bool {
        !self.tools.is_empty() && self.choice != ToolChoice::None
    }

    /// Whether the caller wants at most one call in an answer.
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
    /// The JSON Schema of the arguments, an object; `None` takes no arguments.
    pub parameters: Option<Arc<Value>>,
    /// The schema's source text, if `parameters` can't hold all digits of its numbers.
    pub parameters_text: Option<Arc<str>>,
    /// Whether the arguments must match the schema even where the model is free to call or not.
    pub strict: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model sees the tools, but doesn't call them.
    None,
    /// The model decides whether to call (`auto`).
    #[default]
    Auto,
    /// At least one call, and no text.
    Required,
    /// A call of this tool, and no text.
    Named(String),
}

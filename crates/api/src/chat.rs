//! Chat completions.

pub mod answer;
pub mod message;

pub use crate::chat::answer::{
    Answer, Call, CallDelta, Choice, Chunk, ChunkChoice, Delta, Function, FunctionDelta, Logprobs,
    Message as AnswerMessage, TokenLogprob, TopLogprob,
};
pub use crate::chat::message::{Content, Message, Part, Role, ToolCall};
use crate::sampling::{LogitBias, Stop, StreamOptions};
use crate::value::{Anything, Integer, List, object};

/// Messages of one conversation.
pub const MESSAGES_MAX: usize = 4096;
/// Definitions of tools.
const TOOLS_MAX: usize = 1024;
/// Kinds of output.
const MODALITIES_MAX: usize = 16;

object! {
    /// The body of `POST chat/completions`.
    pub struct Request {
        model: String,
        messages: List<Message, MESSAGES_MAX>,
        max_tokens: Integer,
        max_completion_tokens: Integer,
        stream: bool,
        stream_options: StreamOptions,
        temperature: f64,
        top_p: f64,
        top_k: Integer,
        min_p: f64,
        stop: Stop,
        n: Integer,
        presence_penalty: f64,
        frequency_penalty: f64,
        repetition_penalty: f64,
        logit_bias: LogitBias,
        seed: Integer,
        logprobs: bool,
        top_logprobs: Integer,
        return_tokens_as_token_ids: bool,
        response_format: ResponseFormat,
        tools: List<Anything, TOOLS_MAX>,
        tool_choice: ToolChoice,
        functions: List<Anything, TOOLS_MAX>,
        function_call: ToolChoice,
        modalities: List<String, MODALITIES_MAX>,
        audio: Anything,
        web_search_options: Anything,
        /// Callers don't choose upstreams.
        api_base: Anything,
        base_url: Anything,
    }
}

object! {
    pub struct ResponseFormat {
        kind as "type": String,
    }
}

/// `tool_choice`, and the older `function_call`: a word, or the name of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    None,
    Auto,
    Required,
    Named,
}

impl<'de> serde::Deserialize<'de> for ToolChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> serde::de::Visitor<'de> for Choice {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"none\", \"auto\", \"required\" or an object")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "none" => Ok(ToolChoice::None),
                    "auto" => Ok(ToolChoice::Auto),
                    "required" => Ok(ToolChoice::Required),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<ToolChoice, A::Error> {
                while map
                    .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
                    .is_some()
                {}
                Ok(ToolChoice::Named)
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

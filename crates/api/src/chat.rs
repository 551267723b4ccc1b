//! Chat completions.

pub mod answer;
pub mod message;
pub mod tools;

pub use crate::chat::answer::{
    Answer, Call, CallDelta, Choice, Chunk, ChunkChoice, Delta, Function, FunctionDelta, Logprobs,
    Message as AnswerMessage, TokenLogprob, TopLogprob,
};
pub use crate::chat::message::{Content, Message, Part, Role, ToolCall};
pub use crate::chat::tools::{Tool, ToolChoice};
use crate::format::Formats;
use crate::json::Kwargs;
use crate::sampling::{Extensions, Sampling, Stop, StreamOptions};
use crate::value::{Anything, Integer, List, object};

/// Most messages of one conversation.
pub const MESSAGES_MAX: usize = 4096;
/// Most definitions of tools in a request, as in OpenAI's API.
pub const TOOLS_MAX: usize = 128;
/// Most entries of `modalities`.
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
        stop: Stop,
        n: Integer,
        logprobs: bool,
        top_logprobs: Integer,
        return_tokens_as_token_ids: bool,
        tools: List<Tool, TOOLS_MAX>,
        tool_choice: ToolChoice,
        parallel_tool_calls: bool,
        /// OpenAI's fields for functions, from before it had tools.
        functions: Anything,
        function_call: Anything,
        separate_reasoning: bool,
        enable_thinking: bool,
        reasoning_effort: String,
        chat_template_kwargs: Kwargs,
        include_reasoning: bool,
        thinking_token_budget: Integer,
        add_generation_prompt: bool,
        continue_final_message: bool,
        modalities: List<String, MODALITIES_MAX>,
        audio: Anything,
        web_search_options: Anything,
        /// Fields by which a caller would choose the upstream server: refused.
        api_base: Anything,
        base_url: Anything,
        +sampling: Sampling,
        +formats: Formats,
        +extensions: Extensions,
        ..others
    }
}

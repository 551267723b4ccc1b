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
use crate::format::{CHOICES_MAX, GivenSchema, ResponseFormat, StructuredOutputs};
use crate::json::Kwargs;
use crate::sampling::{BAD_WORDS_READ_MAX, LogitBias, STOP_TOKENS_READ_MAX, Stop, StreamOptions};
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
        /// vLLM's fields for the format of an answer: the current one, and the older `guided_*`.
        structured_outputs: StructuredOutputs,
        guided_json: GivenSchema,
        guided_regex: String,
        guided_choice: List<String, CHOICES_MAX>,
        guided_grammar: String,
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
        ignore_eos: bool,
        min_tokens: Integer,
        stop_token_ids: List<u32, STOP_TOKENS_READ_MAX>,
        include_stop_str_in_output: bool,
        skip_special_tokens: bool,
        allowed_token_ids: Vec<u32>,
        bad_words: List<String, BAD_WORDS_READ_MAX>,
        truncate_prompt_tokens: Integer,
        truncation_side: String,
        prompt_logprobs: Integer,
        return_token_ids: bool,
        modalities: List<String, MODALITIES_MAX>,
        audio: Anything,
        web_search_options: Anything,
        /// Fields by which a caller would choose the upstream server: refused.
        api_base: Anything,
        base_url: Anything,
        ..others
    }
}

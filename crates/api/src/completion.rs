//! Plain completions.

pub mod answer;
pub mod prompt;

pub use crate::completion::answer::{Answer, Choice, Chunk, ChunkChoice, Logprobs, TopLogprobs};
pub use crate::completion::prompt::Prompts;
use crate::format::{CHOICES_MAX, GivenSchema, ResponseFormat, StructuredOutputs};
use crate::sampling::{BAD_WORDS_READ_MAX, LogitBias, STOP_TOKENS_READ_MAX, Stop, StreamOptions};
use crate::value::{Anything, Integer, List, object};

object! {
    /// The body of `POST completions`.
    pub struct Request {
        model: String,
        prompt: Prompts,
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
        best_of: Integer,
        presence_penalty: f64,
        frequency_penalty: f64,
        repetition_penalty: f64,
        logit_bias: LogitBias,
        seed: Integer,
        logprobs: Integer,
        return_tokens_as_token_ids: bool,
        echo: bool,
        suffix: String,
        response_format: ResponseFormat,
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
        add_special_tokens: bool,
        parse_special: bool,
        /// vLLM's fields for the format of an answer: the current one, and the older `guided_*`.
        structured_outputs: StructuredOutputs,
        guided_json: GivenSchema,
        guided_regex: String,
        guided_choice: List<String, CHOICES_MAX>,
        guided_grammar: String,
        /// Fields by which a caller would choose the upstream server: refused.
        api_base: Anything,
        base_url: Anything,
        ..others
    }
}

//! Plain completions.

pub mod answer;
pub mod prompt;

pub use crate::completion::answer::{Answer, Choice, Chunk, ChunkChoice, Logprobs, TopLogprobs};
pub use crate::completion::prompt::Prompts;
use crate::format::{CHOICES_MAX, Foreign, GivenSchema, ResponseFormat, StructuredOutputs};
use crate::sampling::{LogitBias, Stop, StreamOptions};
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
        /// Formats of answers as vLLM takes them, by their names of now and before.
        structured_outputs: StructuredOutputs,
        guided_json: GivenSchema,
        guided_regex: String,
        guided_choice: List<String, CHOICES_MAX>,
        guided_grammar: String,
        guided_whitespace_pattern: Foreign,
        /// Formats of answers as other servers take them.
        grammar: Foreign,
        regex: Foreign,
        ebnf: Foreign,
        json_schema: Foreign,
        structural_tag: Foreign,
        format: Foreign,
        /// Callers don't choose upstreams.
        api_base: Anything,
        base_url: Anything,
    }
}

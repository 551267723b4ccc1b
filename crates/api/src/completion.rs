//! Plain completions.

pub mod answer;
pub mod prompt;

pub use crate::completion::answer::{Answer, Choice, Chunk, ChunkChoice, Logprobs, TopLogprobs};
pub use crate::completion::prompt::Prompts;
use crate::format::Formats;
use crate::sampling::{Extensions, Sampling, Stop, StreamOptions};
use crate::value::{Anything, Integer, object};

object! {
    /// The body of `POST completions`.
    pub struct Request {
        model: String,
        prompt: Prompts,
        max_tokens: Integer,
        max_completion_tokens: Integer,
        stream: bool,
        stream_options: StreamOptions,
        stop: Stop,
        n: Integer,
        best_of: Integer,
        logprobs: Integer,
        return_tokens_as_token_ids: bool,
        echo: bool,
        suffix: String,
        add_special_tokens: bool,
        parse_special: bool,
        /// Fields by which a caller would choose the upstream server: refused.
        api_base: Anything,
        base_url: Anything,
        +sampling: Sampling,
        +formats: Formats,
        +extensions: Extensions,
        ..others
    }
}

//! Loads for servers with OpenAI's API, Weir and others, and their effect on callers: tokens per second, time to first token
//! (TTFT), inter-token latency, refusals. `bench-load` is the command line for them, which `make bench` uses.

mod closed;
mod figures;
mod long_prompt;
mod target;
mod words;

pub use crate::load::closed::{Closed, Ending, Prompts};
pub use crate::load::long_prompt::LongPrompt;
pub use crate::load::target::Target;

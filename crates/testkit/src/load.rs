//! Loads for a server that speaks OpenAI's API, Weir or another, and what its callers feel: tokens per second, the time
//! to the first token (TTFT), the gaps between tokens, refusals. `bench-load` is its command line, `make bench` its use.

mod closed;
mod figures;
mod long_prompt;
mod target;
mod words;

pub use crate::load::closed::{Closed, Ending, Prompts};
pub use crate::load::long_prompt::LongPrompt;
pub use crate::load::target::Target;

//! The wire format: OpenAI's, with Novita's additions.
//!
//! Requests are parsed strictly in types and leniently otherwise: every field may be absent or null, unknown fields are
//! skipped, and the last occurrence of a repeated field counts. The code that converts a request checks which fields
//! are required, and their ranges. Only [`admin`] is strict. This crate knows JSON and nothing else.

pub mod admin;
pub mod billing;
pub mod chat;
pub mod completion;
pub mod embeddings;
pub mod error;
pub mod format;
pub mod json;
pub mod models;
pub mod others;
pub mod prompt_logprobs;
pub mod sampling;
pub mod sse;
pub mod tokens;
pub mod usage;
mod value;

pub use crate::format::ResponseFormat;
pub use crate::others::{Others, Outline};
pub use crate::sampling::{LogitBias, Stop, StreamOptions};
pub use crate::usage::Usage;
pub use crate::value::{Anything, Integer, List};

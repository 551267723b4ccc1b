//! What callers get: the whole answer, or chunks of it, which have one shape.

use serde::Serialize;

use crate::usage::{StreamUsage, Usage};

/// Of whole answers and of chunks.
pub const OBJECT: &str = "text_completion";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    pub id: String,
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    pub model: String,
    pub choices: Vec<Choice>,
    pub usage: Usage,
    pub system_fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    pub text: String,
    pub index: u32,
    pub logprobs: Option<()>,
    pub finish_reason: &'static str,
}

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chunk<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: i64,
    pub model: &'a str,
    pub choices: &'a [ChunkChoice<'a>],
    pub system_fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "StreamUsage::is_absent")]
    pub usage: StreamUsage,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkChoice<'a> {
    pub text: &'a str,
    pub index: u32,
    pub logprobs: Option<()>,
    /// Null until the choice's last chunk, but always there.
    pub finish_reason: Option<&'static str>,
}

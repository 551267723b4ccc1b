//! The answers to plain completions: whole, or in chunks of the same shape.

use serde::{Serialize, Serializer};

use crate::prompt_logprobs::PromptLogprobs;
use crate::usage::{StreamUsage, Usage};

/// The `object` of whole answers and of chunks.
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
    pub system_fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    pub text: String,
    pub index: u32,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: &'static str,
    /// vLLM's additions, present only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<PromptLogprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// A frame of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chunk<'a> {
    pub id: &'a str,
    pub object: &'static str,
    pub created: i64,
    pub model: &'a str,
    pub choices: &'a [ChunkChoice<'a>],
    pub system_fingerprint: &'a str,
    #[serde(skip_serializing_if = "StreamUsage::is_absent")]
    pub usage: StreamUsage,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkChoice<'a> {
    pub text: &'a str,
    pub index: u32,
    pub logprobs: Option<Logprobs>,
    /// Null until the choice's last chunk; the key is always present.
    pub finish_reason: Option<&'static str>,
    /// Present in the choice's first chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<&'a [u32]>,
}

/// Four lists with an entry for each token. The first token of an echoed prompt has no token before it and so no
/// log-probability.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Logprobs {
    pub tokens: Vec<String>,
    pub token_logprobs: Vec<Option<f32>>,
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where each token begins, in characters from the beginning of the prompt.
    pub text_offset: Vec<usize>,
}

/// The most likely tokens at one position, and the token itself; the best first.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprobs(pub Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

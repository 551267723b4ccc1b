//! Embeddings of texts.

use serde::Serialize;

use crate::completion::prompt::PromptsOf;
use crate::value::{Anything, Integer, object};

/// Most inputs of one request, as in OpenAI's API.
pub const INPUTS_MAX: usize = 2_048;

object! {
    /// The body of `POST embeddings`.
    pub struct Request {
        model: String,
        input: PromptsOf<INPUTS_MAX>,
        encoding_format: String,
        dimensions: Integer,
        /// Fields by which a caller would choose the upstream server: refused.
        api_base: Anything,
        base_url: Anything,
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    pub object: &'static str,
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: Usage,
}

impl Answer {
    pub const OBJECT: &'static str = "list";
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Embedding {
    pub object: &'static str,
    pub index: usize,
    pub embedding: Vector,
}

impl Embedding {
    pub const OBJECT: &'static str = "embedding";
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Vector {
    Floats(Vec<f32>),
    /// The floats' little-endian bytes in Base64.
    Base64(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub total_tokens: u64,
}

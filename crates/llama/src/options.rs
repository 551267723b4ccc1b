//! How a model is run, and why it can't be loaded.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use crate::embedder::Pooling;

/// How a generating model is run. Absent values are chosen from the model and the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Threads of the kernels. Default: as many as the cores that this process may use.
    pub threads: Option<u32>,
    /// The fewest threads, however busy other processes keep the cores. Default: one; all if `reproducible`.
    pub threads_min: Option<u32>,
    /// The longest sequence in tokens, if shorter than the model's trained context.
    pub context_tokens: Option<u32>,
    /// KV cells, over all sequences.
    pub cells: Option<u32>,
    /// The most sequences at once, with those that only hold a cached prefix.
    pub sequences: Option<u32>,
    pub kv_layout: KvLayout,
    /// The format of the keys and values in the cache.
    pub kv_format: KvFormat,
    pub flash_attention: FlashAttention,
    /// Tokens of a long prompt, from its beginning, that are computed by background prefill, in a second context with as many cells.
    /// 0 turns it off; it is also off with split cells, a cache in `F32`, sliding windows or recurrent states.
    pub aside_tokens: u32,
    /// Whether logits must be the same to the bit whatever else is served (`Batching::OneSequence`). The layout is then
    /// [`KvLayout::Split`].
    pub reproducible: bool,
}

/// How KV cells are divided between sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvLayout {
    /// All sequences take cells from one pool: forks share cells, and one sequence may take all of them. For each token of the
    /// batch, attention passes over the cells of all sequences.
    #[default]
    Unified,
    /// An equal share per sequence, which bounds its length; a fork is a copy. Attention passes over as many cells as the
    /// longest sequence of the step has.
    Split,
}

/// The format of cached keys and values. `Q8_0` takes half the memory of `F16`, `F32` twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvFormat {
    #[default]
    F16,
    Q8_0,
    F32,
}

/// Whether attention is computed by ggml's fused kernel. On a CPU that kernel goes token by token if a step has fewer than 64,
/// which takes up to three times as long, but skips the cells of other sequences in a third of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlashAttention {
    /// On only for models with a sliding window and a cache in `F16`, where the fused kernel is never slower, for
    /// reproducible ones, and for a cache in `Q8_0`, which requires it.
    #[default]
    Auto,
    On,
    Off,
}

/// How an embedding model is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedOptions {
    /// Threads of the kernels. Default: as many as the cores that this process may use.
    pub threads: Option<u32>,
    /// The fewest threads, however busy other processes keep the cores. Default: one.
    pub threads_min: Option<u32>,
    /// The longest input in tokens. Default: the model's trained context, 2,048 at most.
    pub input_tokens_max: Option<u32>,
    /// How vectors are pooled. Default: as the file says.
    pub pooling: Option<Pooling>,
}

/// The uses that a model file is served for, and how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeOptions {
    pub generate: LoadOptions,
    pub embed: EmbedOptions,
    /// Whether a generating model gives embeddings too: by default the means of its tokens' vectors.
    pub embeddings: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the model file {} can't be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} is not a GGUF file", path.display())]
    NotGguf { path: PathBuf },
    #[error("the model file {} can't be loaded; is it complete? {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
    /// A trial process loaded the file first, and was ended by it.
    #[error(
        "the model file {} is damaged, or of a kind that llama.cpp can't load: a process that tried it ended ({status}): {said}",
        path.display()
    )]
    Deadly {
        path: PathBuf,
        status: ExitStatus,
        said: String,
    },
    /// A trial process loaded the file first, and reported this error.
    #[error("{0}")]
    Refused(String),
    #[error("the model file {} can't be tried in another process: {error}", path.display())]
    Trial { path: PathBuf, error: io::Error },
    #[error("{} can't be served: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: &'static str },
    /// Most often, there isn't enough memory for the cache.
    #[error("no room for a KV cache of {cells} tokens and {sequences} sequences: {reason}")]
    Memory {
        cells: u32,
        sequences: u32,
        reason: String,
    },
    #[error("{name} must be between 1 and {max}, got {value}")]
    Option {
        name: &'static str,
        value: u32,
        max: u32,
    },
    #[error("a KV cache in q8_0 needs flash attention")]
    FlashAttention,
    #[error("{0} isn't possible with a recurrent or hybrid model")]
    States(&'static str),
    #[error("{0}")]
    Machine(&'static str),
}

//! The traits that a model implements: the border between batching, in this crate, and kernels, outside of it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use weir_engine::Token;
pub use weir_engine::tokenizer::{Bos, Encoded};

use crate::specials::{Names, Specials};

/// The model's vocabulary. It can be used from any thread.
pub trait Tokenizer: Send + Sync + Debug {
    fn vocabulary(&self) -> u32;

    /// The special tokens with their names, such as `<|im_end|>`.
    fn specials(&self) -> &Specials;

    /// Tokenizes a text. `names` says where the name of a special token becomes that token. With `Bos::Add` the model's
    /// BOS token comes first, if the model wants one; a rendered conversation already has it.
    fn encode(&self, text: &str, names: Names<'_>, bos: Bos) -> Encoded;

    /// Tokenizes a text in which every special token's name becomes that token, as Python tokenizers do. Returns only
    /// the first tokens of a text that is so long that tokenizing it takes too long.
    fn tokenize(&self, text: &str, bos: Bos) -> Vec<Token> {
        self.encode(text, Names::All, bos).tokens
    }

    /// Appends the token's bytes to `bytes`; special tokens have none. A token may end inside a UTF-8 character.
    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>);

    /// Whether the token ends a generation (an EOS token).
    fn is_end(&self, token: Token) -> bool;
}

/// A model and its KV cache, owned by one thread.
///
/// The cache is a pool of KV cells shared by all sequences: each token of a sequence occupies a cell, and sequences
/// that were forked share the cells of their common tokens.
pub trait Model: Send + 'static {
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;
    fn facts(&self) -> &ModelFacts;
    fn capacity(&self) -> Capacity;

    /// The tokens of a kernel tile: a step with fewer tokens takes about as long as one with this many.
    fn tile_rows(&self) -> u32 {
        1
    }

    /// How many decode tokens (of all streams) an unused KV cell stays in the prefix cache at most. The attention of
    /// each decode token passes over unused cells too; after this many, that has cost as much as computing the cell
    /// again. `None` if attention skips unused cells.
    fn ttl_tokens(&self) -> Option<u32> {
        Some(5_000)
    }

    /// Computes a step, which is a batch of tokens. The tokens of a sequence are at consecutive positions that continue
    /// what the cache holds of it. After an error the cache is as before, except after [`DecodeError::Lost`]. Models
    /// that can abort a step call `wanted` now and then, and fail with [`DecodeError::Unwanted`] when it returns
    /// `false`.
    fn decode_while(
        &mut self,
        rows: &[BatchToken],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError>;

    /// Computes a step without ever aborting it.
    fn decode(&mut self, rows: &[BatchToken]) -> Result<(), DecodeError> {
        self.decode_while(rows, &|| true)
    }

    /// The logits after the token at index `row` of the last step, which must have `output` set.
    fn logits(&self, row: usize) -> &[f32];

    /// The limits of background prefill ([`begin_aside`](Self::begin_aside)); `None` if the model can't do it.
    fn aside(&self) -> Option<AsideCapacity> {
        None
    }

    /// Starts background prefill of a chunk of a sequence, in place of the chunk under way, if any. The chunk has at
    /// most [`AsideCapacity::rows`] tokens at consecutive positions that continue what the cache holds of the sequence;
    /// none of them is an output. Nothing is computed yet.
    fn begin_aside(&mut self, rows: &[BatchToken]) -> Result<(), DecodeError> {
        let _ = rows;
        Err(DecodeError::Fault("nothing is computed aside".to_owned()))
    }

    /// Continues the background chunk for about `time`; steps of other sequences may follow before the next call. No
    /// step may compute the chunk's sequence meanwhile; forgetting or truncating the sequence cancels the chunk. When
    /// the chunk is done, the cache holds its tokens. An error cancels the chunk and leaves the cache as before.
    fn go_aside(&mut self, time: Duration) -> Result<Aside, DecodeError> {
        let _ = time;
        Err(DecodeError::Fault("nothing is computed aside".to_owned()))
    }

    /// Makes the empty sequence `to` start with the first `length` tokens of `from`, sharing their cells. With
    /// [`Forks::AtEnd`], `length` is the whole length of `from`.
    fn fork(&mut self, from: SequenceId, to: SequenceId, length: u32);

    /// Drops the tokens of a sequence after the first `length`, which is at least 1. Never called for models with
    /// [`Forks::AtEnd`].
    fn truncate(&mut self, sequence: SequenceId, length: u32);

    /// Drops all tokens of a sequence; cells that no other sequence shares become free.
    fn forget(&mut self, sequence: SequenceId);
}

/// An embedding model, owned by one thread.
pub trait Embedder: Send + 'static {
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;
    fn facts(&self) -> EmbedderFacts;

    /// Computes a vector for each input, not normalized. There are at most [`EmbedderFacts::inputs`] inputs, with at
    /// most [`EmbedderFacts::rows`] tokens in all; a single input may have more.
    fn embed(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderFacts {
    /// The number of dimensions of a vector.
    pub dimensions: u32,
    /// The longest input, in tokens.
    pub input_tokens_max: u32,
    /// The most tokens of a step, over all its inputs.
    pub rows: u32,
    /// The most inputs of a step.
    pub inputs: u32,
    /// The token that the model expects at the end of a text, if it expects one.
    pub last: Option<Token>,
}

/// A model's context length, chat template and digest, known once it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The longest sequence, in tokens.
    pub context_tokens: u32,
    pub chat_template: Option<String>,
    /// Text of the BOS token, and below of the EOS token: chat templates insert them.
    pub bos: String,
    pub eos: String,
    /// A digest of what the logits depend on: weights, kernels, settings.
    pub digest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// KV cells: the tokens that the cache holds, over all sequences.
    pub cells: u32,
    /// The most sequences at once; their ids are `0..sequences`.
    pub sequences: u32,
    /// The most tokens of one step (the batch size).
    pub rows: u32,
    /// The most tokens of one step whose logits are wanted.
    pub outputs: u32,
    pub batching: Batching,
    pub forks: Forks,
}

/// Where a sequence can be forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    /// After any token, and the sequence can be truncated there.
    Anywhere,
    /// Only after the last computed token, and the sequence can't be truncated: the model keeps a single state per
    /// sequence (Mamba, RWKV, and hybrids of these with attention), which doesn't contain earlier states.
    AtEnd,
}

/// The limits of background prefill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsideCapacity {
    /// The most tokens of a chunk.
    pub rows: u32,
    /// With fewer prompt tokens left than this, steps are as good.
    pub rows_min: u32,
    /// The longest beginning of a sequence, in tokens, that can be computed in the background.
    pub tokens: u32,
}

/// The state of the background chunk after [`Model::go_aside`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    Paused,
    Done,
}

/// Which sequences may share a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Tokens of any sequences share a step, which makes the most of the kernels. A token's logits vary a little with
    /// the other tokens of the batch, since kernels round differently.
    Together,
    /// Only tokens of one sequence, always in the same shapes: its logits are the same to the bit, whatever other
    /// sequences there are. The cache has room for a whole context in each sequence.
    OneSequence,
}

/// Tokens of a chunk: enough for the kernels to be near their full speed, few enough not to stall streams for long.
const CHUNK_ROWS: u32 = 64;

impl Capacity {
    /// The tokens of a prompt's chunk with [`Batching::OneSequence`]. At most `outputs`, since each of them may be an
    /// output.
    pub fn chunk(&self) -> u32 {
        CHUNK_ROWS.min(self.rows).min(self.outputs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u32);

/// A token of the batch that a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchToken {
    pub token: Token,
    /// The token's position in its sequence, from 0.
    pub position: u32,
    pub sequence: SequenceId,
    /// Whether the logits after the token are wanted.
    pub output: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No free KV cells for the batch (fragmentation, a sliding window): the caller retries with fewer tokens or
    /// sequences.
    #[error("the KV cache is full")]
    CacheFull,
    #[error("nobody wanted the step any more")]
    Unwanted,
    #[error("{0}")]
    Fault(String),
    /// The step failed half way and the cache's content is lost with it: every sequence is empty.
    #[error("{0}")]
    Lost(String),
    /// The weights have changed since they were loaded, so that everything the model computes is useless.
    #[error("{0}")]
    Damaged(String),
}

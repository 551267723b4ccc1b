//! What a model can do: the border between batching, which is here, and kernels, which are not.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::Token;
use crate::specials::{Names, Specials};

/// What can be asked of a model from any thread.
pub trait Tokenizer: Send + Sync + Debug {
    fn vocabulary(&self) -> u32;

    /// The tokens that have a name, `<|im_end|>`.
    fn specials(&self) -> &Specials;

    /// Tokens of a text, in which some names are special tokens. With `Bos::Add` the model's own first token is put
    /// in front if the model wants one; a rendered conversation brings its own.
    fn encode(&self, text: &str, names: Names<'_>, bos: Bos) -> Encoded;

    /// Tokens of a text in which all names are special tokens, as in the Python tokenizers; only the first ones of a
    /// text that takes too long.
    fn tokenize(&self, text: &str, bos: Bos) -> Vec<Token> {
        self.encode(text, Names::All, bos).tokens
    }

    /// Appends the bytes that a generated token stands for; special tokens stand for none.
    /// Tokens needn't end where characters do.
    fn piece(&self, token: Token, bytes: &mut Vec<u8>);

    /// Whether the token ends a generation.
    fn is_end(&self, token: Token) -> bool;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    Add,
    Omit,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<Token>,
    /// Whether these are all. Tokenizing stops on texts far beyond the context that would take too long.
    pub complete: bool,
}

/// A model and its KV cache, owned by one thread.
///
/// The cache is a pool of cells shared by all sequences: each token of a sequence occupies a cell, and
/// sequences that were forked share the cells of their common tokens.
pub trait Model: Send + 'static {
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;
    fn facts(&self) -> &ModelFacts;
    fn capacity(&self) -> Capacity;

    /// Steps with fewer rows than this take about as long as one that has them.
    fn tile_rows(&self) -> u32 {
        1
    }

    /// For how many rows of streams a cell may be kept for nothing: the attention of each passes over it, and by then has taken
    /// as long as computing it. `None` if it doesn't.
    fn keep_rows(&self) -> Option<u32> {
        Some(5_000)
    }

    /// Computes a step. Rows of a sequence are at consecutive positions that continue what the cache
    /// holds of it. On error the cache is as before, unless it is [`DecodeError::Lost`]. `wanted` is asked now
    /// and then, by models that can give a step up: with `false` they do.
    fn decode_while(&mut self, rows: &[Row], wanted: &dyn Fn() -> bool) -> Result<(), DecodeError>;

    /// Computes a step to its end.
    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.decode_while(rows, &|| true)
    }

    /// Logits of the step's row `row` (an index into what `decode` was given, with `output` set).
    fn logits(&self, row: usize) -> &[f32];

    /// What can be computed aside, if anything ([`begin_aside`](Self::begin_aside)).
    fn aside(&self) -> Option<AsideCapacity> {
        None
    }

    /// Takes on a piece of a sequence that is computed beside steps, in place of another one: at most
    /// [`AsideCapacity::rows`] rows at consecutive positions that continue what the cache holds of it, none of which is an output.
    /// Nothing is computed yet.
    fn begin_aside(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        let _ = rows;
        Err(DecodeError::Fault("nothing is computed aside".to_owned()))
    }

    /// Goes on with the piece for about so long; steps of other sequences may follow before the next call. Nobody else has the
    /// sequence's end meanwhile; who forgets or cuts it gives the piece up. When the piece is done the cache holds its rows. On
    /// error it is given up, and the cache is as before.
    fn go_aside(&mut self, time: Duration) -> Result<Aside, DecodeError> {
        let _ = time;
        Err(DecodeError::Fault("nothing is computed aside".to_owned()))
    }

    /// Makes the empty sequence `to` start with the first `length` tokens of `from`, sharing their cells. These
    /// are all that it has if [`Capacity::forks`] says so.
    fn fork(&mut self, from: SequenceId, to: SequenceId, length: u32);

    /// Forgets the tokens of a sequence behind the first `length`, which is at least 1. Isn't asked of models
    /// whose sequences fork only at their end.
    fn truncate(&mut self, sequence: SequenceId, length: u32);

    /// Forgets all tokens of a sequence; cells that no other sequence shares are free again.
    fn forget(&mut self, sequence: SequenceId);
}

/// A model that turns texts to vectors, owned by one thread.
pub trait Embedder: Send + 'static {
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;
    fn facts(&self) -> EmbedderFacts;

    /// A vector of each input, of any length: at most `inputs` of them, with at most `rows` tokens in all
    /// unless one is alone.
    fn embed(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedderFacts {
    /// Numbers of a vector.
    pub dimensions: u32,
    /// The longest input, in tokens.
    pub input_tokens_max: u32,
    /// Tokens of a step.
    pub rows: u32,
    /// Inputs of a step.
    pub inputs: u32,
    /// The token that the model wants behind a text, if it wants one.
    pub last: Option<Token>,
}

/// A model's own texts and sizes, known once it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Longest sequence, in tokens.
    pub context_tokens: u32,
    pub chat_template: Option<String>,
    /// Text of the special tokens that templates name.
    pub bos: String,
    pub eos: String,
    /// A digest of what its logits depend on: weights, kernels, settings.
    pub digest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Tokens that the cache holds, over all sequences.
    pub cells: u32,
    /// Sequences at once: ids are `0..sequences`.
    pub sequences: u32,
    /// Rows of one step.
    pub rows: u32,
    /// Rows of one step whose logits are wanted.
    pub outputs: u32,
    pub batching: Batching,
    pub forks: Forks,
}

/// Where another sequence may leave one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forks {
    /// Behind any of its tokens, and it may be cut there.
    Anywhere,
    /// Behind the last token that was computed, and it can't be cut: the model keeps one state of a sequence (Mamba,
    /// RWKV, and hybrids of these with attention), which says nothing of how it was before.
    AtEnd,
}

/// What may be computed beside steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsideCapacity {
    /// Of a piece.
    pub rows: u32,
    /// With fewer left of a prompt, steps are as good.
    pub rows_min: u32,
    /// Of a sequence, from its beginning.
    pub tokens: u32,
}

/// What came of going on with a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    Paused,
    Done,
}

/// Whose rows may share a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Anybody's, which makes the most of the kernels. A row's logits differ by the kernels' noise with
    /// the rows beside it.
    Together,
    /// One sequence's, always in the same shapes: its logits are the same to the bit, whoever else is
    /// there. The cache has room for a whole context in each sequence.
    OneSequence,
}

/// Enough for the kernels to be near their full speed, few enough not to stall streams for long.
const CHUNK_ROWS: u32 = 64;

impl Capacity {
    /// Rows that a prompt is cut into with [`Batching::OneSequence`]. Each may be an output.
    pub fn chunk(&self) -> u32 {
        CHUNK_ROWS.min(self.rows).min(self.outputs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u32);

/// One token of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub token: Token,
    /// Its place in the sequence, from 0.
    pub position: u32,
    pub sequence: SequenceId,
    /// Whether its logits are wanted.
    pub output: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No free cells for the rows (fragmentation, a sliding window): fewer rows, or fewer sequences.
    #[error("the KV cache is full")]
    CacheFull,
    #[error("nobody wanted the step any more")]
    Unwanted,
    #[error("{0}")]
    Fault(String),
    /// The step failed half way, and with it all that the cache held: every sequence is empty.
    #[error("{0}")]
    Lost(String),
    /// The weights aren't what was loaded any more, so nothing that the model computes is of use.
    #[error("{0}")]
    Damaged(String),
}

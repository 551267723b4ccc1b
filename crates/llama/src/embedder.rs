//! Embeddings of texts: a context of its own, beside a generating one, on the same weights.
//!
//! Pooling is done here, over the vectors of all tokens, in the same way for encoders, which read a text at once, and for
//! causal models, which read a long text in several steps.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_engine::Token;
use weir_inference::model::{
    BatchToken, DecodeError, Embedder, EmbedderFacts, SequenceId, Tokenizer,
};

use crate::batch::Batch;
use crate::shim::{self, Context, guarded};
use crate::tokenizer::LlamaTokenizer;

/// How the vectors of a text's tokens become the vector of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    Mean,
    /// The vector of the first token.
    First,
    /// The vector of the last token.
    Last,
}

/// A model that was loaded for embeddings.
#[derive(Debug)]
pub struct LlamaEmbedder {
    context: Context,
    tokenizer: Arc<LlamaTokenizer>,
    facts: EmbedderFacts,
    pooling: Pooling,
    /// The most tokens of one call of llama.cpp. An encoder's input must fit one call, another model's is split.
    rows_at_once: usize,
    batch: Batch,
}

impl LlamaEmbedder {
    pub(crate) fn new(
        context: Context,
        tokenizer: Arc<LlamaTokenizer>,
        facts: EmbedderFacts,
        pooling: Pooling,
        rows_at_once: usize,
    ) -> Self {
        LlamaEmbedder {
            context,
            tokenizer,
            facts,
            pooling,
            rows_at_once,
            batch: Batch::default(),
        }
    }

    /// Refuses inputs for which an assertion in llama.cpp would fail.
    fn check(&self, inputs: &[Arc<[Token]>]) -> Result<(), DecodeError> {
        let vocabulary = self.tokenizer.vocabulary();
        let tokens = inputs.iter().flat_map(|input| input.iter());
        let rows: usize = inputs.iter().map(|input| input.len()).sum();
        let fault = if inputs.len() > self.facts.inputs as usize {
            "too many inputs in a step"
        } else if inputs.len() > 1 && rows > self.facts.rows as usize {
            "too many tokens in a step"
        } else if rows > self.facts.input_tokens_max.max(self.facts.rows) as usize {
            "an input beyond the model's context"
        } else if inputs.iter().any(|input| input.is_empty()) {
            "an input without tokens"
        } else if tokens.clone().any(|&token| token >= vocabulary) {
            "a token that is not in the vocabulary"
        } else {
            return Ok(());
        };
        Err(DecodeError::Fault(fault.to_owned()))
    }

    fn compute(&mut self, rows: &[BatchToken]) -> Result<(), DecodeError> {
        let context = &mut self.context;
        self.batch.fill(rows);
        let computed = self.batch.lend(|batch| {
            let unasked = std::ptr::null_mut();
            // SAFETY: `lend` keeps the batch's arrays alive and as long as it says, and `check` has seen to the values that
            // llama.cpp asserts.
            unsafe { context.decode(batch, None, unasked) }
        });
        match computed {
            Ok(0) => Ok(()),
            Ok(code) => Err(DecodeError::Fault(format!(
                "llama_decode failed with code {code}"
            ))),
            Err(threw) => Err(DecodeError::Fault(threw.to_string())),
        }
    }

    /// The vector of a token of the last step, by its index in that step.
    fn vector(&self, row: usize) -> Result<&[f32], DecodeError> {
        let index = self.batch.place(row).expect("a row of the last step");
        let mut vector = std::ptr::null();
        let read = guarded(|what, size| {
            // SAFETY: the context is alive and not shared with other threads; llama.cpp checks the index itself.
            unsafe {
                shim::weir_embedding(self.context.pointer(), index, &raw mut vector, what, size)
            }
        });
        if read.is_err() || vector.is_null() {
            return Err(DecodeError::Fault("the model gives no vectors".to_owned()));
        }
        // SAFETY: llama.cpp keeps a row of as many numbers as the model says until the next step, which needs
        // `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(vector, self.facts.dimensions as usize) })
    }

    /// Computes all inputs in steps of at most `rows_at_once` tokens and pools their vectors. An encoder's inputs fit one step,
    /// since it sees a whole text at once.
    fn pool(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError> {
        let mut sums = vec![vec![0.0f64; self.facts.dimensions as usize]; inputs.len()];
        let rows: Vec<BatchToken> = (0..)
            .zip(inputs)
            .flat_map(|(at, input)| rows(at, input))
            .collect();
        for step in rows.chunks(self.rows_at_once) {
            self.compute(step)?;
            for (at, row) in step.iter().enumerate() {
                let input = row.sequence.0 as usize;
                let weight = weight(self.pooling, row.position as usize, inputs[input].len());
                if weight > 0.0 {
                    let vector = self.vector(at)?;
                    let sum = sums[input].iter_mut().zip(vector);
                    sum.for_each(|(sum, &number)| *sum += f64::from(number) * weight);
                }
            }
        }
        let narrow = |sum: Vec<f64>| sum.into_iter().map(|number| number as f32).collect();
        Ok(sums.into_iter().map(narrow).collect())
    }
}

impl Embedder for LlamaEmbedder {
    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as Arc<dyn Tokenizer>
    }

    fn facts(&self) -> EmbedderFacts {
        self.facts
    }

    fn embed(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError> {
        self.check(inputs)?;
        let vectors = self.pool(inputs);
        self.context.handle().clear();
        // If a file was cut meanwhile, the vectors are worthless.
        match self.tokenizer.weights().files().distrusted() {
            Some(why) => Err(DecodeError::Damaged(why.to_owned())),
            None => vectors,
        }
    }
}

fn rows(sequence: u32, input: &[Token]) -> impl Iterator<Item = BatchToken> {
    (0..).zip(input).map(move |(position, &token)| BatchToken {
        token,
        position,
        sequence: SequenceId(sequence),
        output: true,
    })
}

/// The weight of a token's vector in the vector of its text.
fn weight(pooling: Pooling, position: usize, length: usize) -> f64 {
    let only = |at| if position == at { 1.0 } else { 0.0 };
    match pooling {
        Pooling::Mean => 1.0 / length as f64,
        Pooling::First => only(0),
        Pooling::Last => only(length - 1),
    }
}

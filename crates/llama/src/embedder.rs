//! Vectors of texts: a context beside the one that generates, on the same weights.
//!
//! Pooling is done here, over the vectors of all tokens, alike for models that read a text at once (encoders)
//! and for those that read it from left to right, in several steps if it is long.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_engine::Token;
use weir_engine::model::{DecodeError, Embedder, EmbedderFacts, Row, SequenceId, Tokenizer};

use crate::batch::Batch;
use crate::shim::{self, Context, guarded};
use crate::tokenizer::LlamaTokenizer;

/// How the vectors of a text's tokens become the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    Mean,
    /// The first token's.
    First,
    /// The last token's.
    Last,
}

/// A model that was loaded for embeddings.
#[derive(Debug)]
pub struct LlamaEmbedder {
    context: Context,
    tokenizer: Arc<LlamaTokenizer>,
    facts: EmbedderFacts,
    pooling: Pooling,
    /// Rows of a call of llama.cpp: an encoder's longest input, a part of another model's.
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

    /// What llama.cpp would assert.
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

    fn compute(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
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

    /// The vector of a token of the last step.
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

    /// All inputs in steps of at most `rows`. An encoder's fit one step: it sees the whole text at once.
    fn pool(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError> {
        let mut sums = vec![vec![0.0f64; self.facts.dimensions as usize]; inputs.len()];
        let rows: Vec<Row> = (0..)
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
        // What was computed with a file that was cut meanwhile is nothing.
        match self.tokenizer.weights().files().distrusted() {
            Some(why) => Err(DecodeError::Damaged(why.to_owned())),
            None => vectors,
        }
    }
}

fn rows(sequence: u32, input: &[Token]) -> impl Iterator<Item = Row> {
    (0..).zip(input).map(move |(position, &token)| Row {
        token,
        position,
        sequence: SequenceId(sequence),
        output: true,
    })
}

/// How much of a token's vector is in its text's.
fn weight(pooling: Pooling, position: usize, length: usize) -> f64 {
    let only = |at| if position == at { 1.0 } else { 0.0 };
    match pooling {
        Pooling::Mean => 1.0 / length as f64,
        Pooling::First => only(0),
        Pooling::Last => only(length - 1),
    }
}

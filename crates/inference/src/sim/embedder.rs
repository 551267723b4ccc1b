//! An embedder without a file: the vector of an input is a function of its tokens.

use std::sync::Arc;

use weir_engine::Token;

use crate::model::{DecodeError, Embedder, EmbedderFacts, Tokenizer};
use crate::sim::tokenizer::SimTokenizer;
use crate::sim::{mix, unit};

/// A simulated embedder. It asserts the contract of [`Embedder`], and fails on the tokens `fault` and `damage`.
#[derive(Debug, Clone)]
pub struct SimEmbedder {
    pub facts: EmbedderFacts,
    /// A step with this token fails.
    pub fault: Option<Token>,
    /// A step with this token fails with [`DecodeError::Damaged`].
    pub damage: Option<Token>,
}

impl Default for SimEmbedder {
    fn default() -> Self {
        SimEmbedder {
            facts: EmbedderFacts {
                dimensions: 8,
                input_tokens_max: 64,
                rows: 64,
                inputs: 16,
                last: None,
            },
            fault: None,
            damage: None,
        }
    }
}

impl Embedder for SimEmbedder {
    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(SimTokenizer)
    }

    fn facts(&self) -> EmbedderFacts {
        self.facts
    }

    fn embed(&mut self, inputs: &[Arc<[Token]>]) -> Result<Vec<Vec<f32>>, DecodeError> {
        let rows: usize = inputs.iter().map(|input| input.len()).sum();
        assert!(!inputs.is_empty() && inputs.iter().all(|input| !input.is_empty()));
        assert!(inputs.len() <= self.facts.inputs as usize);
        assert!(inputs.len() == 1 || rows <= self.facts.rows as usize);
        let has = |wrong: Option<Token>| {
            let mut tokens = inputs.iter().flat_map(|input| input.iter());
            wrong.is_some_and(|wrong| tokens.any(|&token| token == wrong))
        };
        if has(self.fault) {
            return Err(DecodeError::Fault("this step was to fail".to_owned()));
        }
        if has(self.damage) {
            return Err(DecodeError::Damaged("the file was to be cut".to_owned()));
        }
        Ok(inputs.iter().map(|input| self.vector(input)).collect())
    }
}

impl SimEmbedder {
    /// The model's vector of an input, not normalized.
    pub fn vector(&self, input: &[Token]) -> Vec<f32> {
        let hash = input
            .iter()
            .fold(7, |hash, &token| mix(hash, u64::from(token)));
        (0..u64::from(self.facts.dimensions))
            .map(|number| (unit(mix(hash, number)) * 4.0 - 2.0) as f32)
            .collect()
    }
}

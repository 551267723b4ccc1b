//! An embedder without a file: the vector of an input is a function of its tokens.

use std::sync::Arc;

use crate::Token;
use crate::model::{DecodeError, Embedder, EmbedderFacts, Tokenizer};
use crate::sim::tokenizer::SimTokenizer;
use crate::sim::{mix, unit};

/// Asserts the contract of [`Embedder`], and fails where a token is said to.
#[derive(Debug, Clone)]
pub struct SimEmbedder {
    pub facts: EmbedderFacts,
    /// A step with this token fails.
    pub fault: Option<Token>,
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
        let fails = |input: &Arc<[Token]>| input.iter().any(|&token| Some(token) == self.fault);
        if inputs.iter().any(fails) {
            return Err(DecodeError::Fault("this step was to fail".to_owned()));
        }
        Ok(inputs.iter().map(|input| self.vector(input)).collect())
    }
}

impl SimEmbedder {
    /// What the model says of an input, of any length.
    pub fn vector(&self, input: &[Token]) -> Vec<f32> {
        let hash = input
            .iter()
            .fold(7, |hash, &token| mix(hash, u64::from(token)));
        (0..u64::from(self.facts.dimensions))
            .map(|number| (unit(mix(hash, number)) * 4.0 - 2.0) as f32)
            .collect()
    }
}

//! Log-probabilities of a prompt's tokens, in vLLM's shape.

use serde::{Serialize, Serializer};

/// One entry for each token of the prompt; null for the first, which nothing precedes.
pub type PromptLogprobs = Vec<Option<Candidates>>;

/// Tokens in one place by their ids: the prompt's own, then the most likely ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates(pub Vec<(u32, Candidate)>);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    pub logprob: f32,
    /// 1 for the most likely token.
    pub rank: u32,
    pub decoded_token: String,
}

impl Serialize for Candidates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, candidate)| (token, candidate)))
    }
}

//! Log-probabilities of a prompt's tokens, in vLLM's format.

use serde::{Serialize, Serializer};

/// An entry for each token of the prompt; null for the first, which has no token before it.
pub type PromptLogprobs = Vec<Option<Candidates>>;

/// Candidates for one position of the prompt, by token id: the prompt's own token, then the most likely ones.
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

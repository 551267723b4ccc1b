//! The token counts of an answer.

use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
    pub prompt_tokens_details: PromptTokensDetails,
    pub completion_tokens_details: CompletionTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PromptTokensDetails {
    pub cached_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CompletionTokensDetails {
    pub reasoning_tokens: u64,
}

/// The `usage` key of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamUsage {
    /// The client didn't ask for usage: the chunk has no such key.
    Absent,
    /// The client asked for usage, which comes in the last chunk: in others the key is null.
    Null,
    Given(Usage),
}

impl StreamUsage {
    pub fn is_absent(&self) -> bool {
        *self == StreamUsage::Absent
    }
}

impl Serialize for StreamUsage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            StreamUsage::Absent | StreamUsage::Null => serializer.serialize_none(),
            StreamUsage::Given(usage) => usage.serialize(serializer),
        }
    }
}

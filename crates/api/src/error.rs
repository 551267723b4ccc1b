//! The body of an error, for every client: Novita's flat keys first, then OpenAI's object.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorBody {
    /// The HTTP status.
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// Strings, as Novita's SDKs have it. An error inside a stream has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<&'static str, String>>,
    pub error: ErrorObject,
}

/// What OpenAI's clients read. All four keys are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorObject {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

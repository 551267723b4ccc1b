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
    /// String values only, as Novita's SDKs expect. An error inside a stream has no metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<&'static str, String>>,
    pub error: ErrorObject,
}

/// The error object that OpenAI's clients read. All four keys are always present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorObject {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

//! Embeddings.

use std::sync::Arc;

use weir_api::completion::prompt::PromptsOf;
use weir_api::embeddings;
use weir_engine::embed::EmbedRequest;
use weir_engine::request::{Invalid, Prompt};
use weir_gateway::Offer;

use super::{missing, refuse_upstreams, within};
use crate::error::ApiError;

/// The encoding of vectors in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Float,
    Base64,
}

pub(crate) fn embeddings(
    offer: &Offer,
    body: embeddings::Request,
) -> Result<(EmbedRequest, Encoding), ApiError> {
    refuse_upstreams(body.api_base, body.base_url)?;
    let encoding = match body.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            return Err(ApiError::invalid(
                "encoding_format",
                "encoding_format must be float or base64",
            ));
        }
    };
    let dimensions = within("dimensions", body.dimensions, 1, i64::from(u32::MAX))?;
    let inputs: Vec<_> = match body.input.ok_or_else(|| missing("input"))? {
        PromptsOf::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        PromptsOf::Tokens(tokens) => tokens.into_iter().map(Prompt::Tokens).collect(),
    };
    let is_empty = |input: &Prompt| match input {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(tokens) => tokens.is_empty(),
    };
    if inputs.is_empty() || inputs.iter().any(is_empty) {
        return Err(Invalid::new("input", "input must not be empty").into());
    }
    // A model whose engine is down may have embeddings: without facts the request passes.
    if offer.facts().is_some_and(|facts| facts.embedding.is_none()) {
        return Err(ApiError::unsupported(&offer.id, "embeddings", "model"));
    }
    let request = EmbedRequest {
        inputs,
        dimensions: dimensions.and_then(|dimensions| u32::try_from(dimensions).ok()),
        account: Arc::default(),
    };
    Ok((request, encoding))
}

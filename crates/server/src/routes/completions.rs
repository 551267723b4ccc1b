//! `POST completions`

use weir_api::completion;
use weir_gateway::Offer;

use super::generate::GenerationApi;
use crate::answer::completion::CompletionAnswer;
use crate::answer::{Envelope, ResponseShape};
use crate::convert::{self, ChatJob};
use crate::error::ApiError;

/// OpenAI's plain completions.
pub(crate) struct Completions;

impl GenerationApi for Completions {
    type Body = completion::Request;
    type Shape = ResponseShape;
    type Answer = CompletionAnswer;

    fn model(body: &completion::Request) -> Option<&str> {
        body.model.as_deref()
    }

    fn job(offer: &Offer, body: completion::Request) -> Result<ChatJob<ResponseShape>, ApiError> {
        convert::completion(offer, body)
    }

    fn answer(envelope: Envelope, shape: ResponseShape) -> CompletionAnswer {
        CompletionAnswer::new(envelope, shape)
    }
}

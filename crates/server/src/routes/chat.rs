//! `POST chat/completions`

use weir_api::chat;
use weir_gateway::Offer;

use super::generate::GenerationApi;
use crate::answer::chat::ChatAnswer;
use crate::answer::{Envelope, ResponseShape};
use crate::convert::{self, ChatJob};
use crate::error::ApiError;

/// OpenAI's chat completions.
pub(crate) struct Chat;

impl GenerationApi for Chat {
    type Body = chat::Request;
    type Shape = ResponseShape;
    type Answer = ChatAnswer;

    fn model(body: &chat::Request) -> Option<&str> {
        body.model.as_deref()
    }

    fn job(offer: &Offer, body: chat::Request) -> Result<ChatJob<ResponseShape>, ApiError> {
        convert::chat(offer, body)
    }

    fn answer(envelope: Envelope, shape: ResponseShape) -> ChatAnswer {
        ChatAnswer::new(envelope, shape)
    }
}

//! What is to be tokenized.

use std::collections::BTreeMap;

use weir_api::tokens::Tokenize;
use weir_api::{Anything, List};
use weir_engine::Request;
use weir_engine::model::Bos;
use weir_engine::request::{Conversation, Ending, Input, Invalid};
use weir_gateway::Offer;

use super::chat::messages::messages;
use super::tools::tools;
use super::{Needs, missing};
use crate::error::ApiError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Prompt(String, Bos),
    /// As a chat's prompt.
    Chat(Box<Request>),
}

pub(crate) fn tokenize(offer: &Offer, body: Tokenize) -> Result<Text, ApiError> {
    match (body.prompt, body.messages) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "prompt",
            "prompt and messages exclude each other; give one of them",
        )),
        (None, None) => Err(missing("prompt")),
        (Some(prompt), None) => {
            let bos = match body.add_special_tokens {
                Some(false) => Bos::Omit,
                Some(true) | None => Bos::Add,
            };
            Ok(Text::Prompt(prompt, bos))
        }
        (None, given @ Some(_)) => {
            as_rendered(body.continue_final_message, body.chat_template)?;
            let mut needs = Needs::default();
            let definitions = body.tools.map(|List(tools)| tools).unwrap_or_default();
            let tools = tools(definitions, None, None, &mut needs)?;
            let conversation = Conversation {
                messages: messages(&offer.id, given)?,
                tools,
                template_kwargs: body
                    .chat_template_kwargs
                    .map_or_else(BTreeMap::new, |weir_api::json::Kwargs(kwargs)| kwargs),
                ending: match body.add_generation_prompt {
                    Some(false) => Ending::Messages,
                    Some(true) | None => Ending::Answer,
                },
                separate_reasoning: false,
            };
            needs.check(offer)?;
            Ok(Text::Chat(Box::new(Request::new(Input::Chat(
                conversation,
            )))))
        }
    }
}

/// Conversations are rendered as they are for an answer, by the model's own template.
fn as_rendered(
    continue_final_message: Option<bool>,
    chat_template: Option<Anything>,
) -> Result<(), Invalid> {
    let fields = [
        (
            "continue_final_message",
            continue_final_message == Some(true),
            "can't be true",
        ),
        ("chat_template", chat_template.is_some(), "is not allowed"),
    ];
    match fields.into_iter().find(|&(_, wrong, _)| wrong) {
        Some((param, _, what)) => Err(Invalid::new(
            param,
            format!("{param} {what}: messages are counted as a chat would send them"),
        )),
        None => Ok(()),
    }
}

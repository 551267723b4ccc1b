//! The text of a request to `tokenize`.

use std::collections::BTreeMap;

use weir_api::tokens::Tokenize;
use weir_api::{Anything, List};
use weir_engine::Request;
use weir_engine::request::{Conversation, Input, Invalid, Tokenizing};
use weir_gateway::Offer;

use super::chat::ending;
use super::chat::messages::messages;
use super::tools::tools;
use super::{Needs, missing, tokenizing};
use crate::error::ApiError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Text {
    Prompt(String, Tokenizing),
    /// A conversation, tokenized as the prompt of a chat.
    Chat(Box<Request>),
}

pub(crate) fn tokenize(offer: &Offer, body: Tokenize) -> Result<Text, ApiError> {
    match (body.prompt, body.messages) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "prompt",
            "prompt and messages exclude each other; give one of them",
        )),
        (None, None) => Err(missing("prompt")),
        (Some(prompt), None) => Ok(Text::Prompt(
            prompt,
            tokenizing(body.add_special_tokens, body.parse_special),
        )),
        (None, given @ Some(_)) => {
            own_template(body.chat_template)?;
            let continues = body.continue_final_message == Some(true);
            let (messages, is_prefix) = messages(&offer.id, given)?;
            let mut needs = Needs::default();
            let definitions = body.tools.map(|List(tools)| tools).unwrap_or_default();
            let tools = tools(definitions, None, None, &mut needs)?;
            let conversation = Conversation {
                ending: ending(
                    continues || is_prefix,
                    body.add_generation_prompt,
                    &messages,
                )?,
                messages,
                tools,
                template_kwargs: body
                    .chat_template_kwargs
                    .map_or_else(BTreeMap::new, |weir_api::json::Kwargs(kwargs)| kwargs),
                separate_reasoning: false,
            };
            needs.check(offer)?;
            Ok(Text::Chat(Box::new(Request::new(Input::Chat(
                conversation,
            )))))
        }
    }
}

/// Refuses a template of the caller's: conversations are rendered by the model's own template, as for an answer.
fn own_template(chat_template: Option<Anything>) -> Result<(), Invalid> {
    const NAME: &str = "chat_template";
    match chat_template {
        None => Ok(()),
        Some(_) => Err(Invalid::new(
            NAME,
            format!("{NAME} is not allowed: messages are counted as a chat would send them"),
        )),
    }
}

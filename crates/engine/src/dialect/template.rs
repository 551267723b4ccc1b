//! A model's own chat template: what a conversation is as text.

#[cfg(test)]
#[path = "../../tests/templates/corpus.rs"]
mod corpus;
mod environment;
mod methods;
mod pieces;
mod probe;
mod switches;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::error::Error as _;

use jiff::Timestamp;
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use self::environment::{Inputs, Jinja, refusal};
pub(super) use self::pieces::Pieces;
use self::view::Shape;
use crate::request::{Conversation, Ending, Invalid, Message, Tool};

/// Characters of a template's own words that a caller gets to see.
const REFUSAL_CHARS_MAX: usize = 500;

/// A model's own chat template. A rendering may take long: it belongs off the engine's thread.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
    shape: Shape,
    abilities: Abilities,
}

/// What a template has a place for, as its renderings show when the model is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The tools that the model may call are in the prompt.
    pub tools: bool,
    /// So are the calls of earlier turns, with their arguments, and what came of them.
    pub tool_results: bool,
    /// `enable_thinking` changes something.
    pub thinking_switch: bool,
    /// The prompt ends where the model thinks, unless it is told not to: the answer has no opening
    /// mark.
    pub opens_thinking: bool,
    /// There is a role `developer`; in other templates it becomes `system`.
    pub developer: bool,
}

impl ChatTemplate {
    /// Fails, with a text for the log, on what is no template or uses what nobody has heard of.
    pub fn parse(source: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let jinja = Jinja::new(source, bos, eos).map_err(|error| explain(&error))?;
        let (abilities, shape) = probe::probe(&jinja).map_err(|error| explain(&error))?;
        Ok(ChatTemplate {
            jinja,
            shape,
            abilities,
        })
    }

    pub fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// The conversation as text, up to where it is to end.
    pub fn render(&self, conversation: &Conversation, now: Timestamp) -> Result<String, Invalid> {
        let scene = Scene {
            messages: &conversation.messages,
            tools: &conversation.tools.tools,
            switches: &conversation.template_kwargs,
            add_generation_prompt: conversation.ending == Ending::Answer,
            stand_ins: String::new(),
            now,
        };
        Ok(self.render_scene(scene)?)
    }

    pub(super) fn render_scene(&self, scene: Scene<'_>) -> Result<String, Refused> {
        let inputs = Inputs {
            messages: view::messages(scene.messages, self.shape),
            tools: view::tools(scene.tools, self.shape),
            add_generation_prompt: scene.add_generation_prompt,
            switches: switches::checked(scene.switches).map_err(Refused::InAnyForm)?,
            stand_ins: scene.stand_ins,
            now: scene.now,
        };
        self.jinja.render(inputs).map_err(|error| {
            let refused = |message| Invalid::new("messages", message);
            match refusal(&error) {
                // It may repeat what it was given.
                Some(refusal) => Refused::AsItIs(refused(
                    refusal
                        .0
                        .chars()
                        .take(REFUSAL_CHARS_MAX)
                        .collect::<String>(),
                )),
                None if error.kind() == ErrorKind::OutOfFuel => Refused::InAnyForm(refused(
                    "the conversation is too long for the model's chat template".to_owned(),
                )),
                None => {
                    tracing::debug!(error = explain(&error), "a chat template failed");
                    Refused::AsItIs(refused(
                        "the model's chat template can't render this conversation".to_owned(),
                    ))
                }
            }
        })
    }
}

/// What a template is to make a prompt of.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) messages: &'a [Message],
    pub(super) tools: &'a [Tool],
    pub(super) switches: &'a BTreeMap<String, Json>,
    pub(super) add_generation_prompt: bool,
    /// Characters that stand for others.
    pub(super) stand_ins: String,
    pub(super) now: Timestamp,
}

/// Why there is no prompt.
#[derive(Debug)]
pub(super) enum Refused {
    /// The template may take the conversation in another form.
    AsItIs(Invalid),
    InAnyForm(Invalid),
}

impl From<Refused> for Invalid {
    fn from(refused: Refused) -> Self {
        let (Refused::AsItIs(invalid) | Refused::InAnyForm(invalid)) = refused;
        invalid
    }
}

/// An error and what caused it, on one line.
fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

//! A model's own chat template, which renders conversations to text.

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
use weir_engine::request::{Conversation, Ending, Invalid, Message, Tool};

/// Limit on the characters of a template's error message that a caller gets to see.
const REFUSAL_CHARS_MAX: usize = 500;

/// A model's own chat template. Rendering may take long: don't do it on the engine thread.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
    shape: Shape,
    abilities: Abilities,
}

/// The abilities of a template, found out by rendering when the model is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The tools that the model may call are rendered.
    pub tools: bool,
    /// Calls of earlier turns are rendered, with their arguments and results.
    pub tool_results: bool,
    /// `enable_thinking` changes the prompt.
    pub thinking_switch: bool,
    /// The prompt ends with the opening mark of the reasoning, unless reasoning is switched off, so that the answer has
    /// no opening mark.
    pub opens_thinking: bool,
    /// There is a role `developer`. In other templates `system` takes its place.
    pub developer: bool,
}

impl ChatTemplate {
    /// Fails, with a message for the log, if the source isn't a template or uses unknown names.
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

    /// Renders the conversation, with a generation prompt at the end if an answer is to follow.
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
                // The message may repeat parts of the conversation, so it is cut.
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

/// The inputs of one rendering.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) messages: &'a [Message],
    pub(super) tools: &'a [Tool],
    pub(super) switches: &'a BTreeMap<String, Json>,
    pub(super) add_generation_prompt: bool,
    /// Stand-ins, which aren't escaped.
    pub(super) stand_ins: String,
    pub(super) now: Timestamp,
}

/// Why a template rendered no prompt.
#[derive(Debug)]
pub(super) enum Refused {
    /// The template may accept the conversation in another form.
    AsItIs(Invalid),
    InAnyForm(Invalid),
}

impl From<Refused> for Invalid {
    fn from(refused: Refused) -> Self {
        let (Refused::AsItIs(invalid) | Refused::InAnyForm(invalid)) = refused;
        invalid
    }
}

/// An error and its causes, on one line.
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

use crate::request::{Invalid, Message};

/// A model's own chat template, in Jinja.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Fails with a text for the log.
    pub fn parse(source: &str, _bos: &str, _eos: &str) -> Result<Self, String> {
        Ok(ChatTemplate { source: source.to_owned() })
    }

    /// The conversation as text, up to where the assistant's next words begin.
    pub fn render(&self, _messages: &[Message], _now: jiff::Timestamp) -> Result<String, Invalid> {
        Ok(self.source.clone())
    }
}

//! The parts of an answer that a parser has found.

use weir_engine::event::Channel;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputPart {
    /// Text of one channel; never empty.
    Text(Channel, String),
    /// A call begins. Its arguments follow as text.
    Call { call: u32, name: String },
}

/// Collects the parts of an answer. Consecutive texts of one channel are joined.
#[derive(Debug, Default)]
pub(super) struct Out {
    parts: Vec<OutputPart>,
    calls: u32,
    /// Whether an answer may have only one call; other calls are dropped.
    one_at_a_time: bool,
    /// Whether there was any content.
    said: bool,
}

impl Out {
    pub(super) fn new(one_at_a_time: bool) -> Self {
        Out {
            one_at_a_time,
            ..Out::default()
        }
    }

    pub(super) fn content(&mut self, text: &str) {
        self.said |= !text.is_empty();
        self.text(Channel::Content, text);
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        self.text(Channel::Reasoning, text);
    }

    pub(super) fn call(&mut self, name: &str) {
        let call = self.calls;
        self.calls += 1;
        if self.is_wanted() {
            let name = name.to_owned();
            self.parts.push(OutputPart::Call { call, name });
        }
    }

    /// Adds arguments to the call that began last.
    pub(super) fn arguments(&mut self, text: &str) {
        if self.is_wanted() {
            self.text(Channel::Call(self.calls - 1), text);
        }
    }

    pub(super) fn calls(&self) -> u32 {
        self.calls
    }

    pub(super) fn has_said(&self) -> bool {
        self.said
    }

    pub(super) fn take(&mut self) -> Vec<OutputPart> {
        std::mem::take(&mut self.parts)
    }

    fn is_wanted(&self) -> bool {
        self.calls == 1 || !self.one_at_a_time
    }

    fn text(&mut self, channel: Channel, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.parts.last_mut() {
            Some(OutputPart::Text(last, before)) if *last == channel => before.push_str(text),
            _ => self.parts.push(OutputPart::Text(channel, text.to_owned())),
        }
    }
}

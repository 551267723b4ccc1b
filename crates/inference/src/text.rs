//! Decodes token bytes to text: whole characters, up to the first stop string.

#[cfg(test)]
mod tests;

use weir_engine::request::Stop;

/// The text of one choice.
///
/// Text that was returned is never taken back. Text that may be the beginning of a stop string is therefore held back
/// until that is decided; all other text is returned at once.
#[derive(Debug)]
pub struct TextStream {
    stop: Stop,
    matchers: Vec<Matcher>,
    /// The first bytes of a character that isn't complete yet.
    incomplete: Vec<u8>,
    /// Whole characters that haven't been returned yet.
    held: String,
    /// Bytes of text that have been returned: the position at which `held` begins.
    out: usize,
    stopped: bool,
}

/// The text that a token adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The text that can be returned now; may be empty.
    pub text: String,
    /// A stop string was found: this `text` is the last.
    pub stopped: bool,
}

impl TextStream {
    pub fn new(stop: &Stop) -> Self {
        TextStream {
            stop: stop.clone(),
            matchers: stop.strings().iter().map(|_| Matcher::default()).collect(),
            incomplete: Vec::new(),
            held: String::new(),
            out: 0,
            stopped: false,
        }
    }

    /// Takes a token's bytes, and returns the text that can no longer be part of a stop string.
    ///
    /// If several stop strings occur, the one that begins first counts: it may still be incomplete when a shorter one
    /// that begins later is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Pushed {
        self.push_as(bytes, Search::Stops)
    }

    /// Like [`TextStream::push`], but these bytes aren't searched for stop strings.
    pub fn push_unsearched(&mut self, bytes: &[u8]) -> Pushed {
        self.push_as(bytes, Search::Nothing)
    }

    fn push_as(&mut self, bytes: &[u8], search: Search) -> Pushed {
        if self.stopped {
            return Pushed {
                text: String::new(),
                stopped: true,
            };
        }
        self.decode(bytes, search);
        let end = self.out + self.held.len();
        let found = self.first_found();
        let begun = self
            .matchers
            .iter()
            .filter_map(|matcher| matcher.begun(end))
            .min();
        match (found, begun) {
            (Some(found), begun) if begun.is_none_or(|begun| begun >= found.begin) => {
                self.stopped = true;
                let text = self.release(self.cut(found));
                self.held = String::new();
                Pushed {
                    text,
                    stopped: true,
                }
            }
            (_, begun) => Pushed {
                text: self.release(begun.unwrap_or(end)),
                stopped: false,
            },
        }
    }

    /// The position in the text, in bytes, at which the next token begins. A character that isn't complete yet isn't
    /// counted.
    pub fn position(&self) -> usize {
        self.out + self.held.len()
    }

    /// Bytes of text that have been returned.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Returns the text that was held back, when the choice ends without a stop string. An incomplete character is
    /// dropped.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        self.stopped = true;
        let end = self.out + self.held.len();
        let found = self.first_found().map(|found| self.cut(found));
        let text = self.release(found.unwrap_or(end));
        self.held = String::new();
        text
    }

    /// Moves whole characters to `held`, and passes them to the matchers.
    fn decode(&mut self, bytes: &[u8], search: Search) {
        self.incomplete.extend_from_slice(bytes);
        let from = self.held.len();
        let mut rest = Vec::new();
        let mut chunks = self.incomplete.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.held.push_str(chunk.valid());
            if chunks.peek().is_none() && is_incomplete(chunk.invalid()) {
                rest = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.held.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.incomplete = rest;
        if search == Search::Nothing {
            return;
        }
        for (matcher, stop) in self.matchers.iter_mut().zip(self.stop.strings()) {
            matcher.push(
                stop.as_bytes(),
                &self.held.as_bytes()[from..],
                self.out + from,
            );
        }
    }

    fn first_found(&self) -> Option<Found> {
        let lengths = self.stop.strings().iter().map(String::len);
        let found = self.matchers.iter().zip(lengths);
        let found = found.filter_map(|(matcher, length)| {
            let begin = matcher.found?;
            let end = begin + length;
            Some(Found { begin, end })
        });
        found.min()
    }

    /// Where the text ends if a stop string was found.
    fn cut(&self, found: Found) -> usize {
        if self.stop.is_shown {
            found.end
        } else {
            found.begin
        }
    }

    /// Returns the held text before the position `end`.
    fn release(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end - self.out);
        self.out = end;
        std::mem::replace(&mut self.held, rest)
    }
}

/// The position of a stop string in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    begin: usize,
    end: usize,
}

/// Whether a token's text is searched for stop strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Stops,
    Nothing,
}

/// Whether more bytes could complete these to a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Finds one stop string in text that comes in parts (Knuth, Morris and Pratt's algorithm).
#[derive(Debug, Default)]
struct Matcher {
    /// Bytes of the stop string's beginning with which the text ends.
    matched: usize,
    /// The algorithm's failure function: for each prefix of the stop string that was matched so far, by its length minus
    /// 1, the length of the longest shorter prefix with which it ends. Extended as needed, since a stop string may be far
    /// longer than any text.
    fallback: Vec<usize>,
    /// Where the first occurrence begins.
    found: Option<usize>,
}

impl Matcher {
    /// Takes text that begins at `position`.
    fn push(&mut self, stop: &[u8], text: &[u8], position: usize) {
        for (i, &byte) in text.iter().enumerate() {
            if self.found.is_some() {
                return;
            }
            while self.matched > 0 && stop[self.matched] != byte {
                self.matched = self.fallback[self.matched - 1];
            }
            if stop[self.matched] == byte {
                self.matched += 1;
                self.learn(stop);
            }
            if self.matched == stop.len() {
                self.found = Some(position + i + 1 - stop.len());
            }
        }
    }

    /// Where an occurrence begins that may be incomplete at `end`.
    fn begun(&self, end: usize) -> Option<usize> {
        (self.found.is_none() && self.matched > 0).then(|| end - self.matched)
    }

    /// Extends `fallback` to the prefix that is matched now.
    fn learn(&mut self, stop: &[u8]) {
        let length = self.matched;
        if self.fallback.len() >= length {
            return;
        }
        let mut shorter = 0;
        if length > 1 {
            shorter = self.fallback[length - 2];
            while shorter > 0 && stop[shorter] != stop[length - 1] {
                shorter = self.fallback[shorter - 1];
            }
            if stop[shorter] == stop[length - 1] {
                shorter += 1;
            }
        }
        self.fallback.push(shorter);
    }
}

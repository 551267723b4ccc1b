//! From the bytes of tokens to text: whole characters, up to the first stop string.

#[cfg(test)]
mod tests;

use crate::request::Stop;

/// The text of one choice.
///
/// What has come out is never taken back, so text that may be the beginning of a stop string is held
/// until that is decided, and nothing else is.
#[derive(Debug)]
pub struct TextStream {
    stop: Stop,
    matchers: Vec<Matcher>,
    /// The beginning of a character whose other bytes have yet to come.
    incomplete: Vec<u8>,
    /// Text that is complete but not yet out.
    held: String,
    /// Bytes of text that are out: where `held` begins.
    out: usize,
    stopped: bool,
}

/// What a token adds to the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushed {
    /// May be empty.
    pub text: String,
    /// A stop string has come: this `text` is the last.
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

    /// Takes a token's bytes and gives what can no longer be part of a stop string.
    ///
    /// If several stop strings occur, the one that begins first counts: it may still be under way
    /// when a later, shorter one is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Pushed {
        self.push_as(bytes, Search::Stops)
    }

    /// The same of a token whose text ends nothing.
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

    /// Where in the text the next token begins, in bytes; a character counts where its first byte came.
    pub fn position(&self) -> usize {
        self.out + self.held.len()
    }

    /// Bytes of text that are out.
    pub fn out(&self) -> usize {
        self.out
    }

    /// What was held back, when the choice ends without a stop string.
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

    /// Moves whole characters to `held`, and shows them to the matchers.
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

    /// Where a text ends that a stop string has ended.
    fn cut(&self, found: Found) -> usize {
        if self.stop.is_shown {
            found.end
        } else {
            found.begin
        }
    }

    /// Lets the text before `end` out.
    fn release(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end - self.out);
        self.out = end;
        std::mem::replace(&mut self.held, rest)
    }
}

/// A stop string in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    begin: usize,
    end: usize,
}

/// What is looked for in the text of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Stops,
    Nothing,
}

/// Whether more bytes could make a character of these.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Finds one stop string in text that comes in pieces (Knuth, Morris and Pratt).
#[derive(Debug, Default)]
struct Matcher {
    /// How many bytes of the stop string the text ends with.
    matched: usize,
    /// For each beginning of the stop string that was matched so far, by its length less one: how
    /// long the longest shorter beginning is that it ends with. Grows as it is needed, since a stop
    /// string may be far longer than any text.
    fallback: Vec<usize>,
    /// Where the first occurrence begins.
    found: Option<usize>,
}

impl Matcher {
    /// Takes the text that begins at `position`.
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

    /// Where an occurrence may have begun that `end` cuts.
    fn begun(&self, end: usize) -> Option<usize> {
        (self.found.is_none() && self.matched > 0).then(|| end - self.matched)
    }

    /// Adds the fallback of the beginning that is matched now, if it is a new one.
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

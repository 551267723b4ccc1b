//! What callers write is text, also where it looks like a special token.
//!
//! A template makes one text of callers' words and names of tokens. So that the former never become the latter, the
//! characters with which names begin have stand-ins in callers' words while a template runs: characters that occur
//! nowhere else. No name survives that, in whatever way a template cuts, joins or replaces words. Afterwards the
//! characters are restored, and the tokenizer is told where (docs/decisions/0024).

mod names;
mod texts;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use self::names::ProtectedNames;
use self::texts::Place;
use crate::request::{Conversation, Ending, Invalid};
use crate::specials::{ByteSet, Specials};

/// Where Unicode's supplementary private use begins, the place for characters that stand for something else.
const PRIVATE: char = '\u{f0000}';
const PRIVATE_LAST: char = '\u{10fffd}';

/// The parameter that asks for an answer to go on with the last message.
const CONTINUED: &str = "continue_final_message";

/// Escapes conversations for one template and one vocabulary.
#[derive(Debug)]
pub(super) struct Escaper {
    names: ProtectedNames,
    /// Private characters that the template itself uses.
    used: BTreeSet<char>,
}

/// Which characters stand for which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StandIns(BTreeMap<char, char>);

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptText {
    pub(crate) text: String,
    /// Where names of special tokens are a caller's words; `None` if there are no such words.
    pub(crate) verbatim: Option<ByteSet>,
}

impl Escaper {
    /// `reasoning` are the marks that stay marks in an assistant's content.
    pub(super) fn new(
        specials: &Specials,
        source: &str,
        marks: &[&str],
        reasoning: &[&str],
    ) -> Self {
        Escaper {
            names: ProtectedNames::new(specials, source, marks, reasoning),
            used: source.chars().filter(|&c| c >= PRIVATE).collect(),
        }
    }

    /// The conversation with what stands for others in it, where that is needed.
    pub(super) fn escape<'a>(
        &self,
        conversation: &'a Conversation,
    ) -> Result<Escaped<'a>, Invalid> {
        let mut replaced = BTreeSet::new();
        let mut used: HashSet<char> = self.used.iter().copied().collect();
        texts::map(conversation, &mut |place, text| {
            used.extend(text.chars().filter(|&c| c >= PRIVATE));
            self.names.each(place, text, &mut |_, c| {
                replaced.insert(c);
            });
            None
        });
        let mut escaped = Escaped {
            conversation: Cow::Borrowed(conversation),
            stand_ins: StandIns::default(),
            end: None,
        };
        let mut free = (PRIVATE..=PRIVATE_LAST).rev().filter(|c| !used.contains(c));
        if !replaced.is_empty() {
            let stand_ins: BTreeMap<char, char> = replaced.iter().copied().zip(&mut free).collect();
            if stand_ins.len() < replaced.len() {
                return Err(no_private_characters());
            }
            let changed = texts::map(conversation, &mut |place, text| {
                self.escaped(place, text, &stand_ins)
            });
            escaped.conversation = changed.map_or(escaped.conversation, Cow::Owned);
            let originals = stand_ins
                .into_iter()
                .map(|(original, stand_in)| (stand_in, original));
            escaped.stand_ins = StandIns(originals.collect());
        }
        if conversation.ending == Ending::Continuation {
            escaped.mark_end(free.next().ok_or_else(no_private_characters)?)?;
        }
        Ok(escaped)
    }

    fn escaped(
        &self,
        place: Place,
        text: &str,
        stand_ins: &BTreeMap<char, char>,
    ) -> Option<String> {
        let mut escaped = String::new();
        let mut done = 0;
        self.names.each(place, text, &mut |at, c| {
            escaped.push_str(&text[done..at]);
            escaped.push(stand_ins[&c]);
            done = at + c.len_utf8();
        });
        (done > 0).then(|| escaped + &text[done..])
    }
}

fn no_private_characters() -> Invalid {
    let message = "messages use all private characters of Unicode";
    Invalid::new("messages", message)
}

/// A conversation as a template may have it.
#[derive(Debug)]
pub(super) struct Escaped<'a> {
    pub(super) conversation: Cow<'a, Conversation>,
    pub(super) stand_ins: StandIns,
    /// What stands where the last message's text ends, with a space behind it, if the answer goes on there.
    end: Option<char>,
}

impl Escaped<'_> {
    fn mark_end(&mut self, end: char) -> Result<(), Invalid> {
        let last = self.conversation.to_mut().messages.last_mut();
        let content = last.and_then(|last| last.content.as_mut()).ok_or_else(|| {
            let message = format!("{CONTINUED}: the last message has no text to go on with");
            Invalid::new(CONTINUED, message)
        })?;
        content.push(end);
        content.push(' ');
        self.end = Some(end);
        Ok(())
    }

    /// What a template made of it.
    pub(super) fn rendered(&self, mut text: String) -> Result<Rendered, Invalid> {
        if let Some(end) = self.end {
            let at = text.rfind(end).ok_or_else(|| {
                let message = format!(
                    "{CONTINUED}: the model's chat template doesn't end with the last message"
                );
                Invalid::new(CONTINUED, message)
            })?;
            // A template that strips the space has stripped what was before it too, as in `transformers`.
            let is_stripped = !text[at + end.len_utf8()..].starts_with(' ');
            text.truncate(at);
            if is_stripped {
                text.truncate(text.trim_end().len());
            }
        }
        Ok(Rendered {
            text,
            stand_ins: self.stand_ins.clone(),
        })
    }
}

/// A prompt with stand-ins.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    stand_ins: StandIns,
}

impl Rendered {
    pub(super) fn restored(self) -> PromptText {
        match self.stand_ins.0.is_empty() {
            true => PromptText {
                text: self.text,
                verbatim: None,
            },
            false => self.stand_ins.restore(&self.text),
        }
    }
}

impl StandIns {
    /// The characters that aren't what they seem, for those who escape private ones.
    pub(super) fn characters(&self) -> String {
        self.0.keys().collect()
    }

    fn restore(&self, rendered: &str) -> PromptText {
        let mut text = String::with_capacity(rendered.len());
        let mut verbatim = ByteSet::default();
        for c in rendered.chars() {
            match self.0.get(&c) {
                Some(&original) => {
                    verbatim.insert(text.len());
                    text.push(original);
                }
                None => text.push(c),
            }
        }
        PromptText {
            text,
            verbatim: Some(verbatim),
        }
    }
}

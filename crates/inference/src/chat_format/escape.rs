//! Keeps callers' text from becoming special tokens.
//!
//! A template makes one text of callers' text and names of special tokens. While it runs, the characters with which names
//! begin are replaced in callers' text by stand-ins: characters that occur nowhere else. So no name survives, however a
//! template cuts, joins or replaces text. Afterwards the characters are restored, and the tokenizer is told where they
//! are (docs/decisions/0024).

mod names;
mod texts;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use weir_engine::request::{Conversation, Ending, Invalid};

use self::names::ProtectedNames;
use self::texts::Place;
use crate::specials::{ByteSet, Specials};

/// The first character of Unicode's supplementary private use areas, from which stand-ins are taken.
const PRIVATE: char = '\u{f0000}';
const PRIVATE_LAST: char = '\u{10fffd}';

/// The parameter with which a request asks for an answer that continues the last message.
const CONTINUED: &str = "continue_final_message";

/// Escapes conversations for one template and one vocabulary.
#[derive(Debug)]
pub(super) struct Escaper {
    names: ProtectedNames,
    /// Private characters in the template's source, which can't be stand-ins.
    used: BTreeSet<char>,
}

/// The original character of each stand-in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StandIns(BTreeMap<char, char>);

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptText {
    pub(crate) text: String,
    /// Positions of the restored characters: a name of a special token with one of them in it is a caller's text. `None`
    /// if no character was replaced.
    pub(crate) verbatim: Option<ByteSet>,
}

impl Escaper {
    /// `marks` are names to protect besides those in the source; `reasoning` are the marks that stay marks in an
    /// assistant's content.
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

    /// Replaces characters of the conversation by stand-ins, where necessary. Fails if no private characters are left.
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

/// A conversation with stand-ins, as a template gets it.
#[derive(Debug)]
pub(super) struct Escaped<'a> {
    pub(super) conversation: Cow<'a, Conversation>,
    pub(super) stand_ins: StandIns,
    /// If the answer continues the last message: the character that marks the end of that message's text. A space follows
    /// it.
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

    /// Takes the template's output. If the answer continues the last message, the output is cut at that message's end;
    /// this fails if the template hasn't written it.
    pub(super) fn rendered(&self, mut text: String) -> Result<Rendered, Invalid> {
        if let Some(end) = self.end {
            let at = text.rfind(end).ok_or_else(|| {
                let message = format!(
                    "{CONTINUED}: the model's chat template doesn't end with the last message"
                );
                Invalid::new(CONTINUED, message)
            })?;
            // A template that strips this space would also have stripped white space before it, as in `transformers`.
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

/// A rendered prompt that still has stand-ins.
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
    /// All stand-ins, for filters that would escape private characters.
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

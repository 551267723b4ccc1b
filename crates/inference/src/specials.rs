//! Special tokens: the tokens of a vocabulary that have a name, and how a text is split at these names.

use std::fmt;
use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use weir_engine::Token;
use weir_engine::request::Tokenizing;

/// A token that a tokenizer finds by its name, before it splits a text into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    pub token: Token,
    /// The text that becomes this token, such as `<|im_end|>`.
    pub name: String,
    pub kind: SpecialKind,
    /// White space before the name belongs to the token.
    pub strips_left: bool,
    /// White space after the name belongs to the token.
    pub strips_right: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// A token for structure, such as the beginning or end of a turn. It stands for no text.
    Control,
    /// A token that stands for its name, which is one token wherever it occurs, such as `<think>` or a run of spaces.
    Word,
}

/// Which names in a text become their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names<'a> {
    /// All names, as in Python's tokenizers.
    All,
    /// Only names of [`SpecialKind::Word`]. A control token's name is text.
    Words,
    /// All names except those with one of these bytes in them.
    AllBut(&'a ByteSet),
}

impl From<Tokenizing> for Names<'static> {
    fn from(tokenizing: Tokenizing) -> Self {
        match tokenizing.control_tokens {
            true => Names::All,
            false => Names::Words,
        }
    }
}

/// A set of positions in a text, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByteSet(Vec<u64>);

impl ByteSet {
    pub fn insert(&mut self, place: usize) {
        let word = place / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (place % 64);
    }

    pub fn contains(&self, place: usize) -> bool {
        let word = self.0.get(place / 64).copied().unwrap_or(0);
        word >> (place % 64) & 1 == 1
    }
}

impl FromIterator<usize> for ByteSet {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let mut set = ByteSet::default();
        places.into_iter().for_each(|place| set.insert(place));
        set
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment {
    Special(Token),
    /// Text between special tokens.
    Text(Range<usize>),
    /// The rest of a text that was cut within a name that isn't a token.
    Rest(Range<usize>),
}

/// The special tokens of a vocabulary.
#[derive(Default)]
pub struct Specials {
    specials: Vec<Special>,
    finder: Option<AhoCorasick>,
}

impl Specials {
    pub fn new(specials: impl IntoIterator<Item = Special>) -> Self {
        let specials: Vec<Special> = specials
            .into_iter()
            .filter(|special| !special.name.is_empty())
            .collect();
        let names = specials.iter().map(|special| &special.name);
        // If one name begins with another, the longer one counts, as in Hugging Face's tokenizers.
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(names)
            .inspect_err(|error| tracing::error!(%error, "special tokens can't be found"))
            .ok()
            .filter(|_| !specials.is_empty());
        Specials { specials, finder }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Special> {
        self.specials.iter()
    }

    /// The name of a token, if it is a special one.
    pub fn name(&self, token: Token) -> Option<&str> {
        let special = self
            .specials
            .iter()
            .find(|special| special.token == token)?;
        Some(&special.name)
    }

    /// Splits a text at its special tokens, in time linear in its length.
    pub fn fragments(&self, text: &str, names: Names<'_>) -> Vec<Fragment> {
        let mut fragments = Fragments::default();
        let mut from = 0;
        let mut look_from = 0;
        while let Some((mut special, mut found)) = self.next(text, look_from..text.len()) {
            let is_word = special.kind == SpecialKind::Word;
            while !is_token(special, &found, names) {
                match self.next(text, found.start..found.end - 1) {
                    Some((shorter, at)) if at.start == found.start => {
                        (special, found) = (shorter, at);
                    }
                    _ => break,
                }
            }
            if !is_token(special, &found, names) {
                look_from = text.ceil_char_boundary(found.start + 1);
                if is_word {
                    // A tokenizer would find the name again, but not if it gets the name in two parts.
                    fragments.text(from..look_from);
                    fragments.cut = true;
                    from = look_from;
                }
                continue;
            }
            let left = &text[from..found.start];
            let kept = if special.strips_left {
                left.trim_ascii_end().len()
            } else {
                left.len()
            };
            fragments.text(from..from + kept);
            fragments.special(special.token);
            let right = &text[found.end..];
            from = if special.strips_right {
                text.len() - right.trim_ascii_start().len()
            } else {
                found.end
            };
            look_from = from;
        }
        fragments.text(from..text.len());
        fragments.all
    }

    /// The first name in this range; if several begin there, the longest.
    fn next(&self, text: &str, range: Range<usize>) -> Option<(&Special, Range<usize>)> {
        let found = self.finder.as_ref()?.find(Input::new(text).range(range))?;
        Some((&self.specials[found.pattern().as_usize()], found.range()))
    }
}

impl fmt::Debug for Specials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Specials")
            .field("count", &self.specials.len())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Fragments {
    all: Vec<Fragment>,
    /// Whether the next text belongs to the one before it.
    cut: bool,
}

impl Fragments {
    fn text(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.all.push(if self.cut {
            Fragment::Rest(range)
        } else {
            Fragment::Text(range)
        });
    }

    fn special(&mut self, token: Token) {
        self.all.push(Fragment::Special(token));
        self.cut = false;
    }
}

fn is_token(special: &Special, found: &Range<usize>, names: Names<'_>) -> bool {
    match names {
        Names::All => true,
        Names::Words => special.kind == SpecialKind::Word,
        Names::AllBut(bytes) => !found.clone().any(|byte| bytes.contains(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(token: Token, name: &str, kind: SpecialKind) -> Special {
        Special {
            token,
            name: name.to_owned(),
            kind,
            strips_left: false,
            strips_right: false,
        }
    }

    fn vocabulary() -> Specials {
        Specials::new([
            special(1, "<s>", SpecialKind::Control),
            special(2, "<sep>", SpecialKind::Control),
            special(3, "<think>", SpecialKind::Word),
            special(4, "  ", SpecialKind::Word),
            special(5, "   ", SpecialKind::Word),
            special(6, "<sep>>", SpecialKind::Control),
            special(7, "", SpecialKind::Control),
            Special {
                strips_left: true,
                strips_right: true,
                ..special(8, "[é]", SpecialKind::Control)
            },
        ])
    }

    /// Shows text as it is, a rest as `+text`, and a token as `#token`.
    fn check(text: &str, names: Names<'_>, expected: &[&str]) {
        let specials = vocabulary();
        let shown: Vec<String> = specials
            .fragments(text, names)
            .into_iter()
            .map(|fragment| match fragment {
                Fragment::Special(token) => format!("#{token}"),
                Fragment::Text(range) => text[range].to_owned(),
                Fragment::Rest(range) => format!("+{}", &text[range]),
            })
            .collect();
        assert_eq!(shown, expected, "{text:?} {names:?}");
    }

    #[test]
    fn names_become_tokens() {
        check("", Names::All, &[]);
        check("a<s>b", Names::All, &["a", "#1", "b"]);
        check("<s><s>", Names::All, &["#1", "#1"]);
        check("<<sep>", Names::All, &["<", "#2"]);
        check("<sep>>", Names::All, &["#6"]);
        check("a       b", Names::All, &["a", "#5", "#5", " b"]);
        check("é \n[é]\t x", Names::All, &["é", "#8", "x"]);
    }

    #[test]
    fn without_control_tokens_their_names_are_text() {
        check("a<s>b", Names::Words, &["a<s>b"]);
        check("<s>  <think>", Names::Words, &["<s>", "#4", "#3"]);
        check("x[é] y", Names::Words, &["x[é] y"]);
    }

    #[test]
    fn names_that_a_caller_wrote_are_text() {
        let check = |text, bytes: &[usize], expected: &[&str]| {
            let bytes = bytes.iter().copied().collect();
            check(text, Names::AllBut(&bytes), expected);
        };
        check("<s>a<s>b", &[4], &["#1", "a<s>b"]);
        check("<s>a<s>b", &[3, 7], &["#1", "a", "#1", "b"]);
        check("<s>a<s>b", &[6], &["#1", "a<s>b"]);
        check("<sep>>", &[5], &["#2", ">"]);
        check("a<think>b<s>", &[1], &["a<", "+think>b", "#1"]);
        check("<think><think>", &[0, 7], &["<", "+think><", "+think>"]);
        check("[é]", &[64, 0], &["[é]"]);
    }
}

//! Finds the characters in callers' text that could become part of a special token's name.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

use super::texts::Place;
use crate::chat_format::template::Pieces;
use crate::specials::{SpecialKind, Specials};

/// Shorter literals of a template count as parts of names, not as texts that the template looks for.
const LITERAL_CHARS_MIN: usize = 3;

/// The names of special tokens that mean something in a template's prompts, prepared for searching.
pub(super) struct ProtectedNames {
    /// The first characters of names, except letters, digits and white space.
    firsts: HashSet<char>,
    /// Names that begin with a letter, a digit or white space.
    odd: Finder,
    /// Texts in which no name begins: what a template may look for in callers' text, and names of ordinary tokens.
    kept: Finder,
    /// The same, and the marks of reasoning, for an assistant's content.
    kept_of_assistant: Finder,
    /// Ends of names, if one of the template's own texts ends with the beginning of the name.
    endings: Option<AhoCorasick>,
    /// Middles of names, if the template writes both the beginning and the end of the name.
    middles: HashSet<String>,
}

impl ProtectedNames {
    /// `marks` are names to protect besides those in the template's source; `reasoning` isn't replaced in an assistant's
    /// content.
    pub(super) fn new(
        specials: &Specials,
        source: &str,
        marks: &[&str],
        reasoning: &[&str],
    ) -> Self {
        let is_protected = |name: &str, kind| match kind {
            SpecialKind::Control => true,
            SpecialKind::Word => is_mark(name) && (source.contains(name) || marks.contains(&name)),
        };
        let (names, words): (Vec<_>, Vec<_>) = specials
            .iter()
            .map(|special| (&*special.name, special.kind))
            .partition(|&(name, kind)| is_protected(name, kind));
        let names: Vec<&str> = names.into_iter().map(|(name, _)| name).collect();
        let firsts: HashSet<char> = names.iter().filter_map(|name| symbol(name)).collect();
        let pieces = Pieces::of(source);
        let compared = pieces
            .literals
            .iter()
            .map(String::as_str)
            .filter(|literal| {
                literal.chars().count() >= LITERAL_CHARS_MIN && !may_begin_name(literal, &names)
            });
        let kept: Vec<&str> = words
            .into_iter()
            .map(|(name, _)| name)
            .chain(compared)
            .filter(|text| text.contains(|c| firsts.contains(&c)))
            .collect();
        let (endings, middles) = unfinished(&names, &pieces);
        ProtectedNames {
            odd: Finder::new(names.iter().copied().filter(|name| symbol(name).is_none())),
            kept_of_assistant: Finder::new(kept.iter().chain(reasoning).copied()),
            kept: Finder::new(kept.iter().copied()),
            endings: anchored(&endings),
            middles,
            firsts,
        }
    }

    /// Calls `show` for each character of a caller's text that must be replaced, in order.
    pub(super) fn each(&self, place: Place, text: &str, show: &mut dyn FnMut(usize, char)) {
        let kept = match place {
            Place::AssistantContent => &self.kept_of_assistant,
            Place::Elsewhere => &self.kept,
        };
        let mut kept = kept.find(text).peekable();
        let mut odd = self.odd.find(text).peekable();
        let mut ending = self.ending_of_name(text);
        for (at, c) in text.char_indices() {
            while kept.next_if(|range| range.end <= at).is_some() {
                // A template may split a text at one of these texts, so that the part after it may complete a name.
                ending = self.ending_of_name(&text[at..]).map(|inside| at + inside);
            }
            let is_kept = kept.peek().is_some_and(|range| range.start <= at);
            let is_odd = odd.next_if(|range| range.start <= at).is_some();
            if is_odd || ending == Some(at) || (self.firsts.contains(&c) && !is_kept) {
                show(at, c);
            }
        }
    }

    /// The position of the first character after white space, if a template could complete a name with the beginning of
    /// the text, or with all of it.
    fn ending_of_name(&self, text: &str) -> Option<usize> {
        let begun = text.trim_start();
        let is_ending = |endings: &AhoCorasick| {
            let input = Input::new(begun).anchored(Anchored::Yes);
            endings.find(input).is_some()
        };
        let is_middle = || self.middles.contains(begun.trim_end());
        (self.endings.as_ref().is_some_and(is_ending) || is_middle())
            .then(|| text.len() - begun.len())
    }
}

impl fmt::Debug for ProtectedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectedNames")
            .field("firsts", &self.firsts)
            .finish_non_exhaustive()
    }
}

/// Whether a name has a symbol in it. Names without one, such as runs of spaces, are in many texts by chance.
fn is_mark(name: &str) -> bool {
    name.contains(|c: char| !c.is_alphanumeric() && !c.is_whitespace())
}

/// The first character of a name, unless it is a letter, digit or white space, which templates look for in many places.
fn symbol(name: &str) -> Option<char> {
    let first = name.chars().next()?;
    (!first.is_alphanumeric() && !first.is_whitespace()).then_some(first)
}

/// Whether a name begins anywhere in this text, even if it would continue after the text's end.
fn may_begin_name(text: &str, names: &[&str]) -> bool {
    text.char_indices().any(|(at, _)| {
        let rest = &text[at..];
        let begins = |name: &&str| name.starts_with(rest) || rest.starts_with(*name);
        names.iter().any(begins)
    })
}

/// Ends of names, if a piece of the template ends with the beginning of the name; and middles of names, if another piece
/// also begins with the end of the name, as `<` and `>` around a caller's word.
fn unfinished(names: &[&str], pieces: &Pieces) -> (Vec<String>, HashSet<String>) {
    let (mut endings, mut middles) = (Vec::new(), HashSet::new());
    for name in names {
        let cuts: Vec<usize> = name.char_indices().map(|(at, _)| at).skip(1).collect();
        let begins = cuts
            .iter()
            .copied()
            .filter(|&cut| pieces.any_ends_with(&name[..cut]));
        for begin in begins {
            endings.push(name[begin..].to_owned());
            let ends = cuts.iter().filter(|&&end| end > begin);
            let ends = ends.filter(|&&end| pieces.any_begins_with(&name[end..]));
            let inside = ends.map(|&end| &name[begin..end]);
            middles.extend(inside.filter(|text| !pieces.knows(text)).map(str::to_owned));
        }
    }
    (endings, middles)
}

fn anchored(texts: &[String]) -> Option<AhoCorasick> {
    let finder = AhoCorasick::builder()
        .start_kind(StartKind::Anchored)
        .build(texts);
    built(finder).filter(|_| !texts.is_empty())
}

fn built(finder: Result<AhoCorasick, aho_corasick::BuildError>) -> Option<AhoCorasick> {
    finder
        .inspect_err(|error| tracing::error!(%error, "names can't be looked for"))
        .ok()
}

/// Finds the leftmost of several texts, and of those that begin at the same place the longest.
struct Finder(Option<AhoCorasick>);

impl Finder {
    fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let texts: Vec<&str> = texts.collect();
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts);
        Finder(built(finder).filter(|_| !texts.is_empty()))
    }

    fn find<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
        let found = self.0.as_ref().map(|finder| finder.find_iter(text));
        found.into_iter().flatten().map(|found| found.range())
    }
}

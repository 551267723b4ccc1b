//! Which characters of callers' words could become a part of a special token's name.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

use super::texts::Place;
use crate::dialect::template::Pieces;
use crate::specials::{SpecialKind, Specials};

/// Shorter literals of a template are parts of names rather than something to look for.
const LITERAL_CHARS_MIN: usize = 3;

/// The names that mean something in the prompts of a template, taken apart.
pub(super) struct ProtectedNames {
    /// What names begin with, but for letters, digits and white space.
    firsts: HashSet<char>,
    /// Names that begin otherwise.
    odd: Finder,
    /// What a template may look for in callers' words, and what ordinary tokens are called: no name begins in these.
    kept: Finder,
    /// The same in what an assistant said.
    kept_of_assistant: Finder,
    /// Ends of names whose beginnings the template writes by themselves.
    endings: Option<AhoCorasick>,
    /// What the template would make a name of, between a beginning and an end that it writes.
    middles: HashSet<String>,
}

impl ProtectedNames {
    /// `marks` are names besides those in the template's source; `reasoning` stays in what an assistant said.
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

    /// Shows each character of a caller's text that is to be replaced, in its order.
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
                // A template may cut a text at what it finds in it.
                ending = self.ending_of_name(&text[at..]).map(|inside| at + inside);
            }
            let is_kept = kept.peek().is_some_and(|range| range.start <= at);
            let is_odd = odd.next_if(|range| range.start <= at).is_some();
            if is_odd || ending == Some(at) || (self.firsts.contains(&c) && !is_kept) {
                show(at, c);
            }
        }
    }

    /// Where a text begins, if a template could finish a name with its beginning or with all of it.
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

/// A name that no text has by chance, as it has runs of spaces.
fn is_mark(name: &str) -> bool {
    name.contains(|c: char| !c.is_alphanumeric() && !c.is_whitespace())
}

/// The first character of a name, unless it is one that templates look for in many places.
fn symbol(name: &str) -> Option<char> {
    let first = name.chars().next()?;
    (!first.is_alphanumeric() && !first.is_whitespace()).then_some(first)
}

/// Whether a name begins somewhere in this text, and be it that it would go on behind it.
fn may_begin_name(text: &str, names: &[&str]) -> bool {
    text.char_indices().any(|(at, _)| {
        let rest = &text[at..];
        let begins = |name: &&str| name.starts_with(rest) || rest.starts_with(*name);
        names.iter().any(begins)
    })
}

/// The ends of names whose beginnings end a piece of the template, and what is then missing of a name whose end
/// begins a piece: `<` and `>` around a caller's word.
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

/// Finds any of some texts, the longest of those that begin together.
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

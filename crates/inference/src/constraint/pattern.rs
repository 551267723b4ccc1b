//! JSON Schema's regular expressions (ECMAScript's), as sets of strings that llguidance can match.

use jsonschema_regex::to_rust_regex;
use llguidance::derivre::{ExprRef, RegexAst, RegexBuilder};
use regex_syntax::ast::ErrorKind;
use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;

use super::ecmascript::{Groups, Untranslatable};
use super::text_set::TextSet;

/// Limit on the bytes of one pattern.
pub const PATTERN_BYTES_MAX: usize = 4_096;
/// Limit on the work of matching one text with a pattern.
const MATCH_FUEL: u64 = 20_000;
/// Limit on a pattern's positions: its literal bytes, and the bytes that its character classes need in UTF-8.
const POSITIONS_MAX: usize = 8_192;

/// A set of strings, with a measure of what it costs to combine with others.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    ast: RegexAst,
    /// Places where a byte may be: an upper bound on the kinds of bytes that can come next, at any point of a text.
    positions: usize,
    /// Whether the expression matches only valid strings. A negated expression also matches bytes that aren't UTF-8.
    is_closed: bool,
}

impl Pattern {
    /// The strings that match as a whole. Trusted: one of ours.
    pub(crate) fn whole(regex: &str) -> Self {
        let positions = regex_syntax::parse(regex).map_or(POSITIONS_MAX, |hir| positions(&hir).0);
        Pattern {
            ast: RegexAst::Regex(regex.to_owned()),
            positions,
            is_closed: true,
        }
    }

    /// The strings that a caller's expression matches as a whole, in Rust's syntax, which has no look-around.
    pub(crate) fn whole_checked(regex: &str) -> Result<Self, &'static str> {
        if regex.len() > PATTERN_BYTES_MAX {
            return Err("the expression is too long");
        }
        let regex = with_ascii_classes(regex)?;
        let Part { positions, .. } = Part::of(regex.clone())?;
        Ok(Pattern {
            ast: RegexAst::Regex(regex),
            positions,
            is_closed: true,
        })
    }

    /// Strings with `least` to `most` characters.
    pub(crate) fn length(least: u64, most: Option<u64>) -> Self {
        let most = most.map_or(String::new(), |most| most.to_string());
        Pattern::whole(&format!("(?s:.{{{least},{most}}})"))
    }

    /// Only the given literals.
    pub(crate) fn one_of(literals: Vec<RegexAst>) -> Self {
        Pattern {
            ast: RegexAst::Or(literals),
            // Whatever the literals are, a text continues with one of 256 bytes.
            positions: 256,
            is_closed: true,
        }
    }

    /// All strings except the given literals.
    pub(crate) fn excluding(literals: Vec<RegexAst>) -> Self {
        Pattern::one_of(literals).negated()
    }

    pub(crate) fn ast(&self) -> RegexAst {
        self.ast.clone()
    }

    /// Everything that isn't in this set.
    pub(crate) fn negated(&self) -> Self {
        Pattern {
            ast: RegexAst::Not(Box::new(self.ast.clone())),
            // In addition to the bytes of this set, every other byte may come.
            positions: self.positions + 1,
            is_closed: false,
        }
    }

    /// Whether a text is in the set; `None` if finding out takes too much work.
    pub(crate) fn contains(&self, text: &str) -> Option<bool> {
        let mut builder = RegexBuilder::new();
        let expression = builder.mk(&self.ast).ok()?;
        let mut regex = builder.to_regex_limited(expression, MATCH_FUEL).ok()?;
        let mut state = regex.initial_state();
        // `to_regex_limited` limits the work of the first state only; the steps after it are limited here.
        for &byte in text.as_bytes() {
            if state.is_dead() {
                return Some(false);
            }
            if regex.cost() > 10 * MATCH_FUEL {
                return None;
            }
            state = regex.transition(state, byte);
        }
        Some(!state.is_dead() && regex.is_accepting(state))
    }

    pub(crate) fn positions(&self) -> usize {
        self.positions
    }
}

/// The strings in which an ECMAScript pattern finds something; why not, in words for callers.
pub(crate) fn search(pattern: &str) -> Result<TextSet, &'static str> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err("the pattern is too long");
    }
    let LookAheads {
        is_anchored,
        found,
        rest,
    } = lookaheads(pattern)?;
    let groups = Groups::of(pattern);
    let part = |part: &str| {
        groups.to_rust(part).map_err(|why| match why {
            Untranslatable::Malformed => MALFORMED,
            Untranslatable::Unsupported => UNSUPPORTED,
        })
    };
    if found.is_empty() {
        return Ok(TextSet::exact(Part::of(part(pattern)?)?.into()));
    }
    let mut parts = vec![Pattern::from(Part::of(format!("^{}", part(rest)?))?)];
    for (is_negative, inner) in &found {
        let part = Pattern::from(Part::of(format!("^(?:{})", part(inner)?))?);
        parts.push(match is_negative {
            true => part.negated(),
            false => part,
        });
    }
    let too_complex = "its look-aheads are too complex together";
    let from_start = all_of(parts.iter()).ok_or(too_complex)?;
    if is_anchored {
        return Ok(TextSet::exact(from_start));
    }
    // Strings in which it is found at the beginning are written; in others it is found later.
    let mut anywhere = vec![Pattern::from(Part::of(part(rest)?)?)];
    for (_, inner) in &found {
        anywhere.push(Part::of(part(inner)?)?.into());
    }
    let anywhere = all_of(anywhere.iter()).ok_or(too_complex)?;
    let later = Pattern {
        ast: RegexAst::Concat(vec![
            RegexAst::Regex("(?s:.*)".to_owned()),
            from_start.ast(),
        ]),
        ..from_start
    };
    Ok(TextSet::between(from_start, anywhere, later, |_| true))
}

struct Part {
    ast: RegexAst,
    positions: usize,
}

impl From<Part> for Pattern {
    fn from(Part { ast, positions }: Part) -> Self {
        Pattern {
            ast,
            positions,
            is_closed: true,
        }
    }
}

impl Part {
    /// `regex` is in Rust's syntax.
    fn of(regex: String) -> Result<Self, &'static str> {
        let hir = regex_syntax::parse(&regex).map_err(|_| UNSUPPORTED)?;
        let (positions, is_plain) = positions(&hir);
        if !is_plain {
            return Err(UNSUPPORTED);
        }
        if positions > POSITIONS_MAX {
            return Err("the pattern is too large");
        }
        let ast = RegexAst::SearchRegex(regex);
        // Anchors within a pattern are found out here.
        let expression = RegexBuilder::new().mk(&ast).map_err(|_| UNSUPPORTED)?;
        if expression == ExprRef::NO_MATCH {
            return Err("no text matches the pattern");
        }
        Ok(Part { ast, positions })
    }
}

const UNSUPPORTED: &str = "the pattern uses what can't be enforced: look-behind, back-references, word boundaries, \
                           look-ahead but at its beginning, anchors within, or halves of characters";
const MALFORMED: &str = "the pattern is no regular expression";

/// An expression in Rust's syntax, but with `\d`, `\w`, `\s` and `.` as ECMAScript has them: Unicode's digits and letters are
/// too many for a grammar.
fn with_ascii_classes(regex: &str) -> Result<String, &'static str> {
    to_rust_regex(regex)
        .map(std::borrow::Cow::into_owned)
        .map_err(|()| match is_malformed(regex) {
            true => MALFORMED,
            false => UNSUPPORTED,
        })
}

/// Whether the pattern is wrong in every syntax, not only in those without look-around.
fn is_malformed(pattern: &str) -> bool {
    let parsed = regex_syntax::ast::parse::Parser::new().parse(pattern);
    parsed.is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ClassUnclosed
                | ErrorKind::ClassRangeInvalid
                | ErrorKind::EscapeUnexpectedEof
                | ErrorKind::GroupUnclosed
                | ErrorKind::GroupUnopened
                | ErrorKind::RepetitionCountInvalid
                | ErrorKind::RepetitionMissing
        )
    })
}

/// An upper bound on the different bytes that can come next, and whether the pattern has nothing that llguidance takes
/// for something else.
fn positions(hir: &Hir) -> (usize, bool) {
    let mut positions: usize = 0;
    let mut is_plain = true;
    let mut todo = vec![hir];
    while let Some(hir) = todo.pop() {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => positions += literal.0.len(),
            HirKind::Class(Class::Bytes(class)) => positions += class.ranges().len(),
            HirKind::Class(Class::Unicode(class)) => {
                for range in class.ranges() {
                    positions += Utf8Sequences::new(range.start(), range.end())
                        .map(|sequence| sequence.len())
                        .sum::<usize>();
                }
            }
            HirKind::Repetition(repetition) => todo.push(&repetition.sub),
            HirKind::Capture(capture) => {
                // llguidance takes a group of this name for a look-ahead.
                is_plain &= capture.name.as_deref() != Some("stop");
                todo.push(&capture.sub);
            }
            HirKind::Concat(parts) | HirKind::Alternation(parts) => todo.extend(parts),
        }
        if positions > POSITIONS_MAX {
            break;
        }
    }
    (positions, is_plain)
}

/// Whether a look-ahead is negative, and the pattern inside it.
type LookAhead = (bool, String);

/// A pattern that begins with look-aheads, as `^(?=.*[0-9])(?!admin)` does.
struct LookAheads<'a> {
    is_anchored: bool,
    found: Vec<LookAhead>,
    /// The pattern without them, and without its anchor.
    rest: &'a str,
}

fn lookaheads(pattern: &str) -> Result<LookAheads<'_>, &'static str> {
    let (is_anchored, mut rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut found = Vec::new();
    loop {
        let is_negative = match (rest.strip_prefix("(?="), rest.strip_prefix("(?!")) {
            (Some(_), _) => false,
            (None, Some(_)) => true,
            (None, None) => break,
        };
        let end = group_end(rest).ok_or(UNSUPPORTED)?;
        let inner = &rest[3..end - 1];
        // Without an anchor the pattern is looked for anywhere, and nearly always there at the beginning.
        if !is_anchored && (is_negative || !inner.starts_with(".*")) {
            return Err(UNSUPPORTED);
        }
        found.push((is_negative, inner.to_owned()));
        rest = &rest[end..];
    }
    // An alternative to the look-aheads would be outside of them.
    if !found.is_empty() && has_alternatives(rest) {
        return Err(UNSUPPORTED);
    }
    Ok(LookAheads {
        is_anchored,
        found,
        rest,
    })
}

/// The end of the group with which a pattern begins.
fn group_end(pattern: &str) -> Option<usize> {
    let (mut depth, mut in_class, mut escaped) = (0, false, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn has_alternatives(pattern: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0, false, false);
    pattern.chars().any(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' => return depth == 0,
            _ => {}
        }
        false
    })
}

/// Largest product of the positions of patterns that llguidance intersects directly: it looks at each combination of
/// bytes that may come next.
const DIRECT_PRODUCT_MAX: usize = 20_000;
/// Largest sum of the positions of patterns that are intersected.
const JOINED_POSITIONS_MAX: usize = 16_384;

/// The strings that are in all of the patterns; `None` if intersecting them takes too much work.
pub(crate) fn all_of<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Option<Pattern> {
    let any = Pattern::whole("(?s:.*)");
    let mut patterns: Vec<_> = patterns.collect();
    if patterns.iter().all(|pattern| !pattern.is_closed) {
        patterns.push(&any);
    }
    let sum: usize = patterns.iter().map(|pattern| pattern.positions).sum();
    if let [only] = &*patterns {
        return Some((*only).clone());
    }
    if sum > JOINED_POSITIONS_MAX {
        return None;
    }
    let product = (patterns.iter()).try_fold(1_usize, |product, pattern| {
        product.checked_mul(pattern.positions.max(1))
    });
    let asts = || patterns.iter().map(|pattern| pattern.ast.clone());
    let ast = match product {
        Some(product) if product <= DIRECT_PRODUCT_MAX && patterns.len() == 2 => {
            RegexAst::And(asts().collect())
        }
        // (A and B) is written as not (not A or not B), by De Morgan's law: in llguidance the costs of a union add up,
        // those of an intersection multiply.
        _ => RegexAst::And(vec![
            any.ast.clone(),
            RegexAst::Not(Box::new(RegexAst::Or(
                asts().map(|ast| RegexAst::Not(Box::new(ast))).collect(),
            ))),
        ]),
    };
    Some(Pattern {
        ast,
        positions: sum,
        is_closed: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_do_in_ecmascript() {
        let check = |pattern: &str, inside: &[&str], outside: &[&str]| {
            let set = search(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            for text in inside {
                assert_eq!(set.contains(text), Some(true), "{pattern} in {text:?}");
            }
            for text in outside {
                assert_eq!(set.contains(text), Some(false), "{pattern} in {text:?}");
            }
        };
        check("a", &["a", "xay"], &["", "b"]);
        check("^a+$", &["a", "aa"], &["", "ab", "ba", "a\n"]);
        check("^a|b$", &["ax", "xb"], &["xa", "bx"]);
        check(r"^\d{2}$", &["12"], &["1", "١٢"]);
        check(r"^\w\W$", &["a-"], &["--", "é-"]);
        check(r"^\s$", &[" ", "\u{a0}", "\u{feff}"], &["a", ""]);
        check("^.$", &["a", "🙂"], &["\n", "\r", "\u{2028}"]);
        check(r"^[\w.-]+\/[a-z\-]$", &["a.b-c/x", "a/-"], &["/x", "a/X"]);
        check("^[[a]$", &["[", "a"], &["b"]);
        check("^[a&&b]$", &["a", "&", "b"], &["c"]);
        check(
            r"^(?=.*[0-9])(?=.*[a-z])(?!.*admin).{4,8}$",
            &["abc1", "1abcdefg"],
            &["abcd", "1234", "admin1", "a1"],
        );
        check("^(?!foo$).*$", &["", "fo", "foobar"], &["foo"]);
        check(r"(?=.*\d).{2,}", &["a1", "\na1"], &["ab", "1", "1\na"]);
        check(r"(?=.*\d)x", &["x1", "ax1", "x\nx1"], &["x", "1x", "x\n1"]);
        check("^(?:a(?<year>[0-9]{4})|b)$", &["a1999", "b"], &["a1"]);
        check("^\\u0041\\x42$", &["AB"], &["ab"]);
        for unsupported in [
            r"\bfoo\b",
            r"(a)\1",
            "(?<=a)b",
            "a(?=b)c",
            "^(?=a)b|c",
            "(?!a)b",
            "a^b",
            "(",
            "[b-a]",
            &"a".repeat(PATTERN_BYTES_MAX + 1),
            r"\p{L}{3}\p{Lu}\p{Ll}[\p{L}a][\p{L}b][\p{L}c][\p{L}d]",
        ] {
            assert!(search(unsupported).is_err(), "{unsupported}");
        }
        assert!(Pattern::whole_checked("(?<stop>a)b").is_err());
        // The engine's look-ahead has a name, which is none here.
        check("^(?<stop>a)b$", &["ab"], &["a"]);
    }

    #[test]
    fn many_patterns_at_once() {
        let patterns: Vec<_> = (0..20)
            .map(|i| search(&format!("^[a-z]{{{i},}}$")).unwrap().written)
            .collect();
        let all = all_of(patterns.iter()).unwrap();
        assert_eq!(all.contains(&"x".repeat(19)), Some(true));
        assert_eq!(all.contains(&"x".repeat(18)), Some(false));
        let large = search(r"^\p{L}+$").unwrap().written;
        assert!(all_of([&large; 40].into_iter()).is_none());
    }
}

//! JSON Schema's regular expressions (ECMAScript's), as sets of strings that llguidance can match.

use jsonschema_regex::to_rust_regex;
use llguidance::derivre::{RegexAst, RegexBuilder};
use regex_syntax::ast::ErrorKind;
use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;

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
    /// The strings in which an ECMAScript pattern finds a match. The error is a message for callers.
    pub(crate) fn search(pattern: &str) -> Result<Self, &'static str> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err("the pattern is too long");
        }
        let (lookaheads, rest) = lookaheads(pattern)?;
        let mut parts = vec![Pattern::from(Part::of(&rest)?)];
        for (is_negative, inner) in lookaheads {
            let Part { ast, positions } = Part::of(&format!("^(?:{inner})"))?;
            parts.push(match is_negative {
                true => Pattern::from(Part { ast, positions }).negated(),
                false => Part { ast, positions }.into(),
            });
        }
        let patterns = parts;
        all_of(patterns.iter()).ok_or("its look-aheads are too complex together")
    }

    /// The strings that an expression of this crate matches as a whole. The expression isn't checked.
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
        let Part { positions, .. } = Part::of(regex)?;
        Ok(Pattern {
            ast: RegexAst::Regex(rust_syntax(regex)?),
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
    fn of(pattern: &str) -> Result<Self, &'static str> {
        let translated = rust_syntax(pattern)?;
        let hir = regex_syntax::parse(&translated).map_err(|_| UNSUPPORTED)?;
        if hir.properties().minimum_len().is_none() {
            return Err("no text matches the pattern");
        }
        let (positions, is_plain) = positions(&hir);
        if !is_plain {
            return Err(UNSUPPORTED);
        }
        if positions > POSITIONS_MAX {
            return Err("the pattern is too large");
        }
        let ast = RegexAst::SearchRegex(translated);
        // This finds anchors within a pattern.
        RegexBuilder::new().mk(&ast).map_err(|_| UNSUPPORTED)?;
        Ok(Part { ast, positions })
    }
}

const UNSUPPORTED: &str = "the pattern uses what can't be enforced: look-behind, back-references, word boundaries, \
                           look-ahead but at its beginning, or anchors within";

fn rust_syntax(pattern: &str) -> Result<String, &'static str> {
    to_rust_regex(pattern)
        .map(std::borrow::Cow::into_owned)
        .map_err(|()| match is_malformed(pattern) {
            true => "the pattern is no regular expression",
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

/// Splits off the look-aheads with which a pattern begins, as in `^(?=.*[0-9])(?!admin)`.
fn lookaheads(pattern: &str) -> Result<(Vec<LookAhead>, String), &'static str> {
    let (anchored, mut rest) = match pattern.strip_prefix('^') {
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
        // Without an anchor a look-ahead may hold anywhere in a text. One that begins with `.*` is meant to hold from the
        // beginning, and is read so.
        if !anchored && (is_negative || !inner.starts_with(".*")) {
            return Err(UNSUPPORTED);
        }
        found.push((is_negative, inner.to_owned()));
        rest = &rest[end..];
    }
    if found.is_empty() {
        return Ok((found, pattern.to_owned()));
    }
    // The look-aheads don't apply to an alternative (`|`) beside them.
    if has_alternatives(rest) {
        return Err(UNSUPPORTED);
    }
    Ok((found, format!("^{rest}")))
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
        // By De Morgan's law: in llguidance the costs of a union add up, those of an intersection multiply.
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
            let set = Pattern::search(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
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
        check(r"(?=.*\d).{2,}", &["a1"], &["ab", "1"]);
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
            "(?<stop>a)b",
            "(",
            "[b-a]",
            &"a".repeat(PATTERN_BYTES_MAX + 1),
            r"\p{L}{3}\p{Lu}\p{Ll}[\p{L}a][\p{L}b][\p{L}c][\p{L}d]",
        ] {
            assert!(Pattern::search(unsupported).is_err(), "{unsupported}");
        }
    }

    #[test]
    fn many_patterns_at_once() {
        let patterns: Vec<_> = (0..20)
            .map(|i| Pattern::search(&format!("^[a-z]{{{i},}}$")).unwrap())
            .collect();
        let all = all_of(patterns.iter()).unwrap();
        assert_eq!(all.contains(&"x".repeat(19)), Some(true));
        assert_eq!(all.contains(&"x".repeat(18)), Some(false));
        let large = Pattern::search(r"^\p{L}+$").unwrap();
        assert!(all_of([&large; 40].into_iter()).is_none());
    }
}

//! Rules for null, booleans, numbers and strings.

use std::collections::HashSet;

use llguidance::derivre::{JsonQuoteOptions, RegexAst, RegexBuilder};

use super::super::decimal::Decimal;
use super::super::json::{Document, ValueId};
use super::super::numbers::{self, Range};
use super::super::pattern::{Pattern, all_of};
use super::super::rules::{Alternative, Rules, Spacing, Symbol, Terminal};
use super::branch::Branch;
use super::keywords::{Literal, NamedPattern, TypeSet};
use super::read::{MULTIPLE_PLACES_MAX, MULTIPLES_MAX};
use super::{Coarse, Compiler, Failure};

/// Allowed escapes in strings, after the backslash. Without `u` a name has only one spelling, so that a free name can't
/// be another spelling of a declared one.
const ESCAPES: &str = "nrbtf\"\\";
/// Limit on the work of finding out whether any text matches an expression.
const EMPTY_FUEL: u64 = 20_000;
/// Limit on the values that a negation excludes from strings or numbers.
const EXCLUDED_MAX: usize = 1_000;

/// The strings of a set as JSON writes them, without control characters that have no short escape.
pub(super) fn quoted(ast: RegexAst) -> RegexAst {
    quoted_with(ast, ESCAPES)
}

fn quoted_with(ast: RegexAst, escapes: &str) -> RegexAst {
    let options = JsonQuoteOptions {
        allowed_escapes: escapes.to_owned(),
        raw_mode: false,
    };
    RegexAst::JsonQuote(Box::new(ast), options)
}

pub(super) fn any_text() -> RegexAst {
    RegexAst::Regex("(?s:.*)".to_owned())
}

/// Any string.
pub(super) fn free_string(rules: &mut Rules) -> Symbol {
    rules.named_regex("string", || quoted(any_text()), Spacing::Json)
}

/// Null, booleans, numbers and strings, whatever their value.
pub(super) fn free_scalars(rules: &mut Rules) -> Vec<Symbol> {
    let null = rules.literal("null", Spacing::Json);
    let boolean = free_boolean(rules);
    let number = rules.named_regex(
        "number",
        || Range::default().numbers().unwrap_or(RegexAst::NoMatch),
        Spacing::Json,
    );
    vec![null, boolean, number, free_string(rules)]
}

fn free_boolean(rules: &mut Rules) -> Symbol {
    rules.named_regex(
        "boolean",
        || RegexAst::Regex("true|false".to_owned()),
        Spacing::Json,
    )
}

impl Compiler<'_> {
    /// Adds the alternatives of a branch that are neither arrays nor objects.
    pub(super) fn scalars(
        &mut self,
        branch: &Branch,
        alternatives: &mut Vec<Alternative>,
    ) -> Result<(), Failure> {
        if branch.literals.is_some() {
            let literals = self.allowed_literals(branch)?;
            if !literals.is_empty() {
                let texts: Vec<_> = literals.iter().map(Literal::text).collect();
                let symbol = match &*texts {
                    [text] => self.rules.literal(text, Spacing::Json),
                    texts => {
                        let all = texts
                            .iter()
                            .map(|text| RegexAst::Literal(text.clone()))
                            .collect();
                        let key = format!("one of {}", texts.join(","));
                        self.rules
                            .named_regex(&key, || RegexAst::Or(all), Spacing::Json)
                    }
                };
                alternatives.push(vec![symbol]);
            }
            return Ok(());
        }
        let is_excluded = |literal: Literal| branch.excluded.contains(&literal);
        if branch.may_be(TypeSet::NULL) && !is_excluded(Literal::Null) {
            alternatives.push(vec![self.rules.literal("null", Spacing::Json)]);
        }
        if branch.may_be(TypeSet::BOOLEAN) {
            let (yes, no) = (
                !is_excluded(Literal::Bool(true)),
                !is_excluded(Literal::Bool(false)),
            );
            match (yes, no) {
                (true, true) => alternatives.push(vec![free_boolean(self.rules)]),
                (true, false) => alternatives.push(vec![self.rules.literal("true", Spacing::Json)]),
                (false, true) => {
                    alternatives.push(vec![self.rules.literal("false", Spacing::Json)]);
                }
                (false, false) => {}
            }
        }
        if branch.may_be(TypeSet::NUMBER)
            && let Some(symbol) = self.number(branch)?
        {
            alternatives.push(vec![symbol]);
        }
        if branch.may_be(TypeSet::STRING)
            && let Some(symbol) = self.string(branch)?
        {
            alternatives.push(vec![symbol]);
        }
        Ok(())
    }

    /// The listed values (`const`, `enum`) that satisfy all other conditions of the branch.
    pub(super) fn allowed_literals(&mut self, branch: &Branch) -> Result<Vec<Literal>, Failure> {
        let excluded: HashSet<_> = branch.excluded.iter().collect();
        let mut allowed = Vec::new();
        for literal in branch.literals.iter().flat_map(|literals| literals.iter()) {
            self.budget.spend(1)?;
            if !branch.types.has(literal.kind()) || excluded.contains(literal) {
                continue;
            }
            let fits = match literal {
                Literal::Null | Literal::Bool(_) => true,
                Literal::Number(number) => is_number_of(number, branch),
                Literal::String(text) => self.is_string_of(text, branch)?,
            };
            if fits {
                allowed.push(literal.clone());
            }
        }
        Ok(allowed)
    }

    fn is_string_of(&mut self, text: &str, branch: &Branch) -> Result<bool, Failure> {
        if branch.least_length > 0 || branch.most_length.is_some() {
            let length = text.chars().count() as u64;
            if length < branch.least_length || branch.most_length.is_some_and(|most| length > most)
            {
                return Ok(false);
            }
        }
        for pattern in &branch.patterns {
            self.budget.spend(50 + text.len())?;
            match pattern.texts.contains(text) {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => self.relax_pattern(
                    pattern,
                    "it takes too much work to compare with a listed value",
                ),
            }
        }
        Ok(true)
    }

    /// The terminal for a branch's numbers; `None` if there are none. `multipleOf` is relaxed if it takes too much work
    /// together with the bounds, or if every multiple has too many digits to be told from its neighbours.
    fn number(&mut self, branch: &Branch) -> Result<Option<Symbol>, Failure> {
        let Some(multiple) = self.multiple(branch) else {
            return self.number_of(branch, None);
        };
        match self.number_of(branch, Some(multiple)) {
            Ok(Some(symbol)) => return Ok(Some(symbol)),
            Ok(None) if self.has_no_multiple(branch, multiple)? => return Ok(None),
            Ok(None) | Err(Failure::Refused(_)) => {}
            Err(stopped) => return Err(stopped),
        }
        let reason = "it takes too much work to enforce beside the other keywords";
        self.relax_layers(branch, "multipleOf", reason);
        self.number_of(branch, None)
    }

    /// Whether no number within the bounds is a multiple, with any number of digits.
    fn has_no_multiple(
        &mut self,
        branch: &Branch,
        (digits, places): (u32, u32),
    ) -> Result<bool, Failure> {
        let Some(set) = number_set(branch) else {
            return Ok(true);
        };
        let ast = RegexAst::And(vec![set, numbers::multiples(digits, places)]);
        match is_empty(&ast, self) {
            Err(Failure::Refused(_)) => Ok(false),
            decided => decided,
        }
    }

    fn number_of(
        &mut self,
        branch: &Branch,
        multiple: Option<(u32, u32)>,
    ) -> Result<Option<Symbol>, Failure> {
        let Some(set) = number_set(branch) else {
            return Ok(None);
        };
        let mut parts = vec![set];
        let mut is_checked = false;
        if let Some((digits, places)) = multiple {
            parts.push(numbers::multiples(digits, places));
            parts.push(numbers::precise());
            is_checked = true;
        }
        let mut not = Vec::new();
        if branch.is_whole == Some(false) {
            not.push(RegexAst::Regex(r"-?[0-9]+(\.0+)?".to_owned()));
        }
        let numbers = branch.excluded.iter().filter_map(|literal| match literal {
            // Excluded numbers cost digits (see `short`), so those out of range are left out.
            Literal::Number(number) if branch.range.contains(number) => {
                Some(numbers::spellings(number))
            }
            _ => None,
        });
        let numbers: Vec<_> = numbers.collect();
        if numbers.len() > EXCLUDED_MAX {
            self.relax_layers(branch, "not", "it takes out too many values to be enforced");
        } else {
            not.extend(numbers);
        }
        if !not.is_empty() {
            parts.push(numbers::without_exponent());
            // Readers hold numbers as doubles: a number with more digits may become another one, even a whole one.
            parts.push(numbers::short());
            parts.push(RegexAst::Not(Box::new(RegexAst::Or(not))));
            is_checked = true;
        }
        let key = format!(
            "number {:?} {:?} {multiple:?} {:?}",
            branch.range, branch.is_whole, branch.excluded
        );
        let ast = match parts.len() {
            1 => parts.remove(0),
            _ => RegexAst::And(parts),
        };
        self.checked(&key, ast, is_checked)
    }

    /// The least common multiple of all `multipleOf`, as digits and decimal places. `None` if there is nothing to
    /// enforce, or if it has too many digits.
    fn multiple(&mut self, branch: &Branch) -> Option<(u32, u32)> {
        let scaled: Option<Vec<_>> = branch.multiples.iter().map(Decimal::scaled).collect();
        let scaled = scaled.filter(|scaled| !scaled.is_empty())?;
        let places = scaled.iter().map(|&(_, places)| places).max()?;
        let mut multiple = 1_u64;
        for (digits, less) in scaled {
            let scale = 10_u64.pow(places - less);
            let next = digits
                .checked_mul(scale)
                .and_then(|digits| least_common_multiple(multiple, digits));
            multiple = next.unwrap_or(u64::MAX);
        }
        // Every whole number is a multiple of 1.
        if places == 0 && multiple == 1 && branch.is_whole == Some(true) {
            return None;
        }
        if multiple > MULTIPLES_MAX || places > MULTIPLE_PLACES_MAX {
            self.relax_layers(
                branch,
                "multipleOf",
                "together they have too many digits to be enforced",
            );
            return None;
        }
        Some((u32::try_from(multiple).ok()?, places))
    }

    fn string(&mut self, branch: &Branch) -> Result<Option<Symbol>, Failure> {
        let has_length = branch.least_length > 0 || branch.most_length.is_some();
        let excluded: Vec<_> = branch
            .excluded
            .iter()
            .filter_map(|literal| match literal {
                Literal::String(text) => Some(RegexAst::Literal(text.to_string())),
                _ => None,
            })
            .collect();
        if branch
            .most_length
            .is_some_and(|most| most < branch.least_length)
        {
            return Ok(None);
        }
        if !has_length && branch.patterns.is_empty() && excluded.is_empty() {
            return Ok(Some(free_string(self.rules)));
        }
        if excluded.len() > EXCLUDED_MAX {
            self.relax_layers(branch, "not", "it takes out too many values to be enforced");
            return Ok(Some(free_string(self.rules)));
        }
        let names: Vec<_> = branch
            .patterns
            .iter()
            .map(|pattern| &*pattern.name)
            .collect();
        let key = format!(
            "string {} {:?} {names:?} {:?}",
            branch.least_length, branch.most_length, branch.excluded
        );
        if let Some(known) = self.rules.named.get(&key) {
            return Ok(*known);
        }
        let mut patterns: Vec<_> = branch
            .patterns
            .iter()
            .map(|pattern| pattern.texts.written.clone())
            .collect();
        if has_length {
            patterns.push(Pattern::length(
                branch.least_length,
                branch.most_written_length(),
            ));
        }
        let excluding = (!excluded.is_empty()).then(|| Pattern::excluding(excluded));
        patterns.extend(excluding.clone());
        let is_checked = patterns.len() > 1 || !branch.patterns.is_empty();
        self.budget
            .spend(patterns.iter().map(Pattern::positions).sum())?;
        let Some(all) = all_of(patterns.iter()) else {
            self.relax_patterns(branch);
            return Ok(Some(free_string(self.rules)));
        };
        let controls_key = format!("{key} with controls");
        let found = match self.checked(&key, quoted(all.ast()), is_checked) {
            // Perhaps all strings of the set have control characters, which need `\u`.
            Ok(None) => self.checked(
                &controls_key,
                quoted_with(all.ast(), &format!("{ESCAPES}u")),
                true,
            ),
            found => found,
        };
        match found {
            Ok(None) if self.has_unwritten(branch, excluding)? => {
                // Another schema with the same strings has to note it as well.
                self.rules.named.remove(&key);
                self.rules.named.remove(&controls_key);
                if self.coarse != Coarse::Wide {
                    self.narrow_patterns(branch);
                    return Ok(None);
                }
            }
            Err(Failure::Refused(_)) => {}
            known => return known,
        }
        self.relax_patterns(branch);
        Ok(Some(free_string(self.rules)))
    }

    /// Whether a string may satisfy a branch though none that is written does.
    fn has_unwritten(
        &mut self,
        branch: &Branch,
        excluding: Option<Pattern>,
    ) -> Result<bool, Failure> {
        if !branch.narrows_strings() {
            return Ok(false);
        }
        let patterns = branch.patterns.iter();
        let mut patterns: Vec<_> = patterns
            .map(|pattern| pattern.texts.all().clone())
            .collect();
        patterns.push(Pattern::length(branch.least_length, branch.most_length));
        patterns.extend(excluding);
        let Some(all) = all_of(patterns.iter()) else {
            return Ok(true);
        };
        match is_empty(&all.ast(), self) {
            Err(Failure::Refused(_)) => Ok(true),
            decided => decided.map(|is_empty| !is_empty),
        }
    }

    /// The terminal for an expression; `None` if `is_checked` and no text matches it. Fails if finding that out takes too
    /// much work.
    pub(super) fn checked(
        &mut self,
        key: &str,
        ast: RegexAst,
        is_checked: bool,
    ) -> Result<Option<Symbol>, Failure> {
        if let Some(known) = self.rules.named.get(key) {
            return Ok(*known);
        }
        let symbol = match is_checked && is_empty(&ast, self)? {
            true => None,
            false => Some(self.rules.terminal(Terminal::Regex(ast), Spacing::Json)),
        };
        self.rules.named.insert(key.to_owned(), symbol);
        Ok(symbol)
    }

    fn narrow_patterns(&mut self, branch: &Branch) {
        let own = self.current.first().and_then(|term| self.place(term.node));
        let mut places: Vec<_> = (branch.patterns.iter())
            .map(|pattern| self.pattern_place(pattern))
            .collect();
        if places.is_empty() {
            places.push(own.unwrap_or(Document::ROOT));
        }
        for place in places {
            self.narrow(
                place,
                "only a part of the strings that it allows is written",
            );
        }
    }

    fn relax_patterns(&mut self, branch: &Branch) {
        let reason = "the patterns, formats and lengths of this string are too complex together";
        for pattern in &branch.patterns {
            self.relax_pattern(pattern, reason);
        }
        if branch.patterns.is_empty() {
            self.relax_layers(branch, "maxLength", reason);
        }
    }

    fn relax_pattern(&mut self, pattern: &NamedPattern, reason: &str) {
        self.relax_value(self.pattern_place(pattern), reason.to_owned());
    }

    fn pattern_place(&self, pattern: &NamedPattern) -> ValueId {
        let name = pattern.name.trim_start_matches("not ");
        let place = self.pattern_places.get(name).copied();
        place.unwrap_or(Document::ROOT)
    }
}

/// The numbers within a branch's bounds; only the whole ones if the branch asks for these.
fn number_set(branch: &Branch) -> Option<RegexAst> {
    match branch.is_whole {
        Some(true) => branch.range.whole_numbers(),
        _ => branch.range.numbers(),
    }
}

/// Whether no text matches an expression. Fails if finding out takes too much work.
fn is_empty(ast: &RegexAst, compiler: &mut Compiler<'_>) -> Result<bool, Failure> {
    let too_complex = || Failure::Refused("it is too complex".to_owned());
    let mut builder = RegexBuilder::new();
    let expression = builder.mk(ast).map_err(|_| too_complex())?;
    compiler
        .budget
        .spend(usize::try_from(builder.exprset().cost() / 20).unwrap_or(usize::MAX))?;
    if builder.exprset().is_positive(expression) {
        return Ok(false);
    }
    let cost = builder.exprset().cost();
    let regex = builder.to_regex_limited(expression, EMPTY_FUEL);
    let spent = regex
        .as_ref()
        .map_or(EMPTY_FUEL, |regex| regex.cost().saturating_sub(cost));
    compiler
        .budget
        .spend(usize::try_from(spent / 10).unwrap_or(usize::MAX))?;
    regex
        .map(|mut regex| regex.always_empty())
        .map_err(|_| too_complex())
}

fn is_number_of(number: &Decimal, branch: &Branch) -> bool {
    let fits_kind = branch
        .is_whole
        .is_none_or(|is_whole| is_whole == number.is_whole());
    fits_kind
        && branch.range.contains(number)
        && branch
            .multiples
            .iter()
            .all(|multiple| number.is_multiple_of(multiple))
}

fn least_common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).checked_mul(b)
}

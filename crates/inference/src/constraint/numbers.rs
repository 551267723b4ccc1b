//! Sets of numbers, as regular expressions over their spellings in JSON.

use llguidance::derivre::RegexAst;

use super::decimal::{Decimal, NUMBER_DIGITS_MAX};

/// Limit on the digits before the point of a number without an upper bound, so that no reader takes it for infinity.
const WHOLE_DIGITS_MAX: usize = 40;
/// Zeros in a lower bound's fraction are compared up to this place. A bound with more of them excludes some numbers just
/// above it; numbers below it are never written.
const ZEROS_MAX: usize = 40;

/// The lower or upper end of a range.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    pub(crate) value: Decimal,
    pub(crate) is_exclusive: bool,
}

/// Numbers between two bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Range {
    pub(crate) low: Option<Bound>,
    pub(crate) high: Option<Bound>,
}

impl Range {
    pub(crate) fn contains(&self, number: &Decimal) -> bool {
        let above = self.low.as_ref().is_none_or(|low| match low.is_exclusive {
            true => *number > low.value,
            false => *number >= low.value,
        });
        let below = self
            .high
            .as_ref()
            .is_none_or(|high| match high.is_exclusive {
                true => *number < high.value,
                false => *number <= high.value,
            });
        above && below
    }

    /// Keeps the tighter of two lower bounds.
    pub(crate) fn raise(&mut self, bound: Bound) {
        let looser = self
            .low
            .as_ref()
            .is_none_or(|low| (&low.value, low.is_exclusive) < (&bound.value, bound.is_exclusive));
        if looser {
            self.low = Some(bound);
        }
    }

    /// Keeps the tighter of two upper bounds.
    pub(crate) fn lower(&mut self, bound: Bound) {
        let looser = self.high.as_ref().is_none_or(|high| {
            (&high.value, !high.is_exclusive) > (&bound.value, !bound.is_exclusive)
        });
        if looser {
            self.high = Some(bound);
        }
    }

    /// The whole numbers of the range, as a range with inclusive bounds.
    fn of_whole(&self) -> Self {
        let low = self.low.as_ref().map(|low| Bound {
            value: low.value.whole_above(low.is_exclusive),
            is_exclusive: false,
        });
        let high = self.high.as_ref().map(|high| Bound {
            value: high.value.whole_below(high.is_exclusive),
            is_exclusive: false,
        });
        Range { low, high }
    }

    fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Some(low), Some(high)) => {
                low.value > high.value
                    || low.value == high.value && (low.is_exclusive || high.is_exclusive)
            }
            _ => false,
        }
    }

    /// The spellings of the range's whole numbers; `None` if it has none.
    pub(crate) fn whole_numbers(&self) -> Option<RegexAst> {
        self.of_whole().written(&|range| {
            let Range { low, high } = range.of_whole();
            match (low, high) {
                (None, None) => digits_free(WHOLE_DIGITS_MAX),
                (low, high) => whole_between(
                    low.as_ref().map_or("0", |low| low.value.whole()),
                    high.as_ref().map(|high| high.value.whole()),
                    WHOLE_DIGITS_MAX,
                ),
            }
        })
    }

    /// The spellings of the range's numbers; `None` if it has none.
    pub(crate) fn numbers(&self) -> Option<RegexAst> {
        if self.low.is_none() && self.high.is_none() {
            return Some(concat([
                regex("-?"),
                digits_free(WHOLE_DIGITS_MAX),
                regex(r"(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?"),
            ]));
        }
        self.written(&|range| {
            let low = range
                .low
                .as_ref()
                .filter(|low| low.is_exclusive || !low.value.is_zero());
            // An upper bound limits the number of digits by itself.
            let digits = range
                .high
                .as_ref()
                .map_or(WHOLE_DIGITS_MAX, |_| NUMBER_DIGITS_MAX);
            let parts = [
                low.map(|low| at_least(low, digits)),
                range.high.as_ref().map(at_most),
            ];
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            match parts.len() {
                0 => concat([digits_free(WHOLE_DIGITS_MAX), regex(r"(\.[0-9]+)?")]),
                1 => parts.into_iter().next().unwrap_or(RegexAst::NoMatch),
                _ => RegexAst::And(parts),
            }
        })
    }

    /// Combines both sides of zero. `above_zero` returns an expression for numbers that aren't negative. Zero gets no
    /// sign.
    fn written(&self, above_zero: &dyn Fn(&Range) -> RegexAst) -> Option<RegexAst> {
        if self.is_empty() {
            return None;
        }
        let zero = Decimal::zero;
        let mut parts = Vec::new();
        let right = Range {
            low: self.low.clone().filter(|low| !low.value.is_negative),
            high: self.high.clone(),
        };
        let reaches = right
            .high
            .as_ref()
            .is_none_or(|high| !high.value.is_negative);
        let from_zero = Range {
            low: right.low.clone().or(Some(Bound {
                value: zero(),
                is_exclusive: false,
            })),
            high: right.high.clone(),
        };
        if reaches && !from_zero.is_empty() {
            parts.push(above_zero(&right));
        }
        let left = Range {
            low: self
                .high
                .clone()
                .filter(|high| high.value.is_negative)
                .map(|high| Bound {
                    value: high.value.magnitude(),
                    ..high
                }),
            high: self.low.clone().map(|low| Bound {
                value: low.value.negated(),
                ..low
            }),
        };
        let left = Range {
            low: left.low.or(Some(Bound {
                value: zero(),
                is_exclusive: true,
            })),
            high: left.high,
        };
        if !left.is_empty() && self.low.as_ref().is_none_or(|low| low.value.is_negative) {
            parts.push(concat([regex("-"), above_zero(&left)]));
        }
        (!parts.is_empty()).then_some(RegexAst::Or(parts))
    }
}

/// All spellings of a number without an exponent.
pub(crate) fn spellings(number: &Decimal) -> RegexAst {
    let sign = match (number.is_negative, number.is_zero()) {
        (true, _) => regex("-"),
        (false, true) => regex("-?"),
        (false, false) => RegexAst::EmptyString,
    };
    let rest = match number.fraction() {
        "" => regex(r"(\.0+)?"),
        fraction => concat([literal(&format!(".{fraction}")), regex("0*")]),
    };
    concat([sign, literal(number.whole()), rest])
}

/// All numbers without an exponent.
pub(crate) fn without_exponent() -> RegexAst {
    regex(r"-?[0-9]+(\.[0-9]+)?")
}

/// Numbers with few enough digits for readers that use floating point: the last digit decides whether a number is a
/// multiple.
pub(crate) fn precise() -> RegexAst {
    regex(r"-?[0-9]{1,15}(\.[0-9]{1,8})?")
}

/// Numbers of at most 15 digits. If such a number isn't whole, it isn't whole as a double either.
pub(crate) fn short() -> RegexAst {
    regex(
        r"-?([0-9]{1,7}(\.[0-9]{1,8})?|[0-9]{8,11}(\.[0-9]{1,4})?|[0-9]{12,13}(\.[0-9]{1,2})?|[0-9]{14,15})",
    )
}

/// Multiples of `digits / 10^places`, with any sign.
pub(crate) fn multiples(digits: u32, places: u32) -> RegexAst {
    concat([regex("-?"), RegexAst::MultipleOf(digits, places)])
}

fn digits_free(most: usize) -> RegexAst {
    regex(&format!("(0|[1-9][0-9]{{0,{}}})", most - 1))
}

/// Whole numbers without a sign, from `low` to `high`. Without `high` they have up to `digits + 1` digits, or two more
/// than `low` if that is more.
fn whole_between(low: &str, high: Option<&str>, digits: usize) -> RegexAst {
    let Some(high) = high else {
        let longer = format!("[1-9][0-9]{{{},{}}}", low.len(), digits.max(low.len() + 1));
        return RegexAst::Or(vec![
            same_length(low, &"9".repeat(low.len())),
            regex(&longer),
        ]);
    };
    if low.len() == high.len() {
        return same_length(low, high);
    }
    let mut parts = vec![
        same_length(low, &"9".repeat(low.len())),
        same_length(&format!("1{}", "0".repeat(high.len() - 1)), high),
    ];
    if low.len() + 1 < high.len() {
        let between = format!("[1-9][0-9]{{{},{}}}", low.len(), high.len() - 2);
        parts.push(regex(&between));
    }
    RegexAst::Or(parts)
}

/// Digit strings between two of the same length, inclusive.
fn same_length(low: &str, high: &str) -> RegexAst {
    let common = low
        .bytes()
        .zip(high.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    if common == low.len() {
        return literal(low);
    }
    let (low_rest, high_rest) = (
        &low.as_bytes()[common + 1..],
        &high.as_bytes()[common + 1..],
    );
    let (low_digit, high_digit) = (low.as_bytes()[common], high.as_bytes()[common]);
    let free = low_rest.len();
    let mut parts = Vec::new();
    let (mut from, mut to) = (low_digit, high_digit);
    if low_rest.iter().any(|&digit| digit != b'0') {
        parts.push(concat([digit(low_digit, low_digit), tail_above(low_rest)]));
        from += 1;
    }
    if high_rest.iter().any(|&digit| digit != b'9') {
        parts.push(concat([
            digit(high_digit, high_digit),
            tail_below(high_rest),
        ]));
        to -= 1;
    }
    if from <= to {
        parts.push(concat([digit(from, to), any_digits(free)]));
    }
    concat([literal(&low[..common]), RegexAst::Or(parts)])
}

/// Digit strings of the same length that are at least `digits`.
fn tail_above(digits: &[u8]) -> RegexAst {
    let text = |digits: &[u8]| String::from_utf8_lossy(digits).into_owned();
    // In place of the trailing zeros any digits may stand.
    let significant = digits
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(0, |at| at + 1);
    let mut parts = vec![concat([
        literal(&text(&digits[..significant])),
        any_digits(digits.len() - significant),
    ])];
    for (i, &at) in digits[..significant].iter().enumerate() {
        if at < b'9' {
            let rest = digits.len() - i - 1;
            parts.push(concat([
                literal(&text(&digits[..i])),
                digit(at + 1, b'9'),
                any_digits(rest),
            ]));
        }
    }
    RegexAst::Or(parts)
}

/// Digit strings of the same length that are at most `digits`.
fn tail_below(digits: &[u8]) -> RegexAst {
    let text = |digits: &[u8]| String::from_utf8_lossy(digits).into_owned();
    let significant = digits
        .iter()
        .rposition(|&digit| digit != b'9')
        .map_or(0, |at| at + 1);
    let mut parts = vec![concat([
        literal(&text(&digits[..significant])),
        any_digits(digits.len() - significant),
    ])];
    for (i, &at) in digits[..significant].iter().enumerate() {
        if at > b'0' {
            let rest = digits.len() - i - 1;
            parts.push(concat([
                literal(&text(&digits[..i])),
                digit(b'0', at - 1),
                any_digits(rest),
            ]));
        }
    }
    RegexAst::Or(parts)
}

/// Numbers without a sign that are at least the bound, or more than it if it is exclusive.
fn at_least(bound: &Bound, digits: usize) -> RegexAst {
    let (whole, fraction) = (bound.value.whole(), bound.value.fraction());
    let mut same = Vec::new();
    match (fraction, bound.is_exclusive) {
        ("", false) => same.push(regex(r"(\.[0-9]+)?")),
        ("", true) => same.push(regex(r"\.[0-9]*[1-9][0-9]*")),
        (fraction, is_exclusive) => {
            let end = if is_exclusive {
                r"[0-9]*[1-9][0-9]*"
            } else {
                "[0-9]*"
            };
            same.push(concat([literal(&format!(".{fraction}")), regex(end)]));
            for (i, at) in fraction.bytes().enumerate() {
                if at < b'9' && !(i > ZEROS_MAX && at == b'0') {
                    same.push(concat([
                        literal(&format!(".{}", &fraction[..i])),
                        digit(at + 1, b'9'),
                        regex("[0-9]*"),
                    ]));
                }
            }
        }
    }
    let mut parts = vec![concat([literal(whole), RegexAst::Or(same)])];
    let above = bound.value.magnitude().whole_above(true);
    parts.push(concat([
        whole_between(above.whole(), None, digits),
        regex(r"(\.[0-9]+)?"),
    ]));
    RegexAst::Or(parts)
}

/// Numbers without a sign that are at most the bound, or less than it if it is exclusive.
fn at_most(bound: &Bound) -> RegexAst {
    let (whole, fraction) = (bound.value.whole(), bound.value.fraction());
    let mut same = Vec::new();
    if fraction.is_empty() {
        if !bound.is_exclusive {
            same.push(regex(r"(\.0+)?"));
        }
    } else {
        same.push(RegexAst::EmptyString);
        for (i, at) in fraction.bytes().enumerate() {
            if i > 0 {
                same.push(literal(&format!(".{}", &fraction[..i])));
            }
            if at > b'0' {
                same.push(concat([
                    literal(&format!(".{}", &fraction[..i])),
                    digit(b'0', at - 1),
                    regex("[0-9]*"),
                ]));
            }
        }
        if !bound.is_exclusive {
            same.push(concat([literal(&format!(".{fraction}")), regex("0*")]));
        }
    }
    let mut parts = vec![concat([literal(whole), RegexAst::Or(same)])];
    if whole != "0" {
        let below = bound.value.whole_below(false).whole_below(true);
        parts.push(concat([
            whole_between("0", Some(below.whole()), 0),
            regex(r"(\.[0-9]+)?"),
        ]));
    }
    RegexAst::Or(parts)
}

fn digit(from: u8, to: u8) -> RegexAst {
    regex(&format!("[{}-{}]", char::from(from), char::from(to)))
}

fn any_digits(count: usize) -> RegexAst {
    match count {
        0 => RegexAst::EmptyString,
        count => regex(&format!("[0-9]{{{count}}}")),
    }
}

fn regex(text: &str) -> RegexAst {
    RegexAst::Regex(text.to_owned())
}

fn literal(text: &str) -> RegexAst {
    RegexAst::Literal(text.to_owned())
}

fn concat(parts: impl IntoIterator<Item = RegexAst>) -> RegexAst {
    RegexAst::Concat(parts.into_iter().collect())
}

#[cfg(test)]
mod tests;

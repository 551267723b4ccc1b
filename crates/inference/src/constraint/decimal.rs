//! Exact decimal numbers of up to [`NUMBER_DIGITS_MAX`] digits, as JSON writes them.

use std::cmp::Ordering;
use std::fmt;

/// Limit on the digits of a number that is enforced, before and after its point together.
pub const NUMBER_DIGITS_MAX: usize = 400;

/// A number as its decimal digits. Two are equal if their values are, however they were written: `1e2`, `100` and
/// `100.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Decimal {
    /// Never set for zero.
    pub(crate) is_negative: bool,
    /// Digits before the point, without leading zeros; empty below one.
    whole: String,
    /// Digits after the point, without trailing zeros.
    fraction: String,
}

impl Decimal {
    /// Parses a JSON number. `None` if it has more than [`NUMBER_DIGITS_MAX`] digits when written without an exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Decimal::zero());
        }
        let leading = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent: i64 = exponent.parse().ok()?;
        // The position of the point, counted from the first significant digit.
        let point = i64::try_from(whole.len())
            .ok()?
            .checked_add(exponent)?
            .checked_sub(leading)?;
        let significant = significant.trim_end_matches('0');
        let point = isize::try_from(point).ok()?;
        let before =
            point
                .unsigned_abs()
                .saturating_add(if point < 0 { significant.len() } else { 0 });
        if before.max(significant.len()) > NUMBER_DIGITS_MAX {
            return None;
        }
        let (whole, fraction) = match usize::try_from(point) {
            Ok(point) if point >= significant.len() => {
                let zeros = "0".repeat(point - significant.len());
                (format!("{significant}{zeros}"), String::new())
            }
            Ok(point) => (
                significant[..point].to_owned(),
                significant[point..].to_owned(),
            ),
            Err(_) => {
                let zeros = "0".repeat(point.unsigned_abs());
                (String::new(), format!("{zeros}{significant}"))
            }
        };
        Some(Decimal {
            is_negative,
            whole,
            fraction,
        })
    }

    pub(crate) fn zero() -> Self {
        Decimal {
            is_negative: false,
            whole: String::new(),
            fraction: String::new(),
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.fraction.is_empty()
    }

    /// Digits before the point; `0` below one.
    pub(crate) fn whole(&self) -> &str {
        if self.whole.is_empty() {
            "0"
        } else {
            &self.whole
        }
    }

    /// Digits after the point; may be empty.
    pub(crate) fn fraction(&self) -> &str {
        &self.fraction
    }

    /// The absolute value.
    pub(crate) fn magnitude(&self) -> Self {
        Decimal {
            is_negative: false,
            ..self.clone()
        }
    }

    /// The smallest whole number that is at least this one (or, if `above`, more than it).
    pub(crate) fn whole_above(&self, above: bool) -> Self {
        let cut = self.cut();
        match (self.is_whole(), self.is_negative) {
            (true, _) if !above => cut,
            (true, _) => cut.plus_one(),
            // Cutting off a negative number's fraction rounds up already.
            (false, true) => cut,
            (false, false) => cut.plus_one(),
        }
    }

    /// The largest whole number that is at most this one (or, if `below`, less than it).
    pub(crate) fn whole_below(&self, below: bool) -> Self {
        self.negated().whole_above(below).negated()
    }

    pub(crate) fn negated(&self) -> Self {
        Decimal {
            is_negative: !self.is_negative && !self.is_zero(),
            ..self.clone()
        }
    }

    fn cut(&self) -> Self {
        Decimal {
            is_negative: self.is_negative && !self.whole.is_empty(),
            whole: self.whole.clone(),
            fraction: String::new(),
        }
    }

    /// Adds one. The number must be whole.
    fn plus_one(&self) -> Self {
        let mut digits = self.whole().as_bytes().to_vec();
        if self.is_negative {
            // The absolute value decreases by one: trailing zeros become nines.
            for digit in digits.iter_mut().rev() {
                if *digit > b'0' {
                    *digit -= 1;
                    break;
                }
                *digit = b'9';
            }
        } else {
            let carried = digits.iter_mut().rev().all(|digit| {
                let carries = *digit == b'9';
                *digit = if carries { b'0' } else { *digit + 1 };
                carries
            });
            if carried {
                digits.insert(0, b'1');
            }
        }
        let whole = String::from_utf8(digits).unwrap_or_default();
        let whole = whole.trim_start_matches('0').to_owned();
        Decimal {
            is_negative: self.is_negative && !whole.is_empty(),
            whole,
            fraction: String::new(),
        }
    }

    /// Whether the number is a whole multiple of another one; false if the other one is 0 or its digits don't fit into 64 bits.
    pub(crate) fn is_multiple_of(&self, of: &Decimal) -> bool {
        let Some((divisor, places)) = of.scaled().filter(|&(divisor, _)| divisor != 0) else {
            return false;
        };
        // Multiples of divisor / 10^places have no more places.
        let Some(zeros) = (places as usize).checked_sub(self.fraction.len()) else {
            return false;
        };
        let digits = (self.whole.bytes().chain(self.fraction.bytes()))
            .map(|digit| u128::from(digit - b'0'))
            .chain(std::iter::repeat_n(0, zeros));
        digits.fold(0, |rest, digit| (rest * 10 + digit) % u128::from(divisor)) == 0
    }

    /// The absolute value as `digits / 10^places`. `None` for zero, or if `digits` doesn't fit in 64 bits.
    pub(crate) fn scaled(&self) -> Option<(u64, u32)> {
        let digits = format!("0{}{}", self.whole, self.fraction).parse().ok()?;
        Some((digits, u32::try_from(self.fraction.len()).ok()?))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        let point = if self.is_whole() { "" } else { "." };
        write!(f, "{sign}{}{point}{}", self.whole(), self.fraction)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = |a: &Self, b: &Self| {
            (a.whole.len().cmp(&b.whole.len()))
                .then_with(|| a.whole.cmp(&b.whole))
                .then_with(|| a.fraction.cmp(&b.fraction))
        };
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn every_digit_is_kept() {
        let check = |text: &str, expected: &str| assert_eq!(decimal(text).to_string(), expected);
        check("1234567890123456789", "1234567890123456789");
        check("9007199254740993", "9007199254740993");
        check("123456789.12345679", "123456789.12345679");
        check("-0.0", "0");
        check("1.50", "1.5");
        check("1e3", "1000");
        check("12.5e-3", "0.0125");
        check("0.00120e+2", "0.12");
        check("100.0", "100");
        check("1E-3", "0.001");
        assert_eq!(decimal("1e2"), decimal("100.0"));
        assert!(Decimal::parse("1e401").is_none());
        assert!(Decimal::parse("1e-401").is_none());
        assert!(Decimal::parse("1e99999999999999999999").is_none());
        assert!(Decimal::parse(&"9".repeat(401)).is_none());
        assert!(Decimal::parse("0e99999999999").is_some());
    }

    #[test]
    fn multiples_are_exact() {
        for (number, of, expected) in [
            ("0", "3", true),
            ("0.0", "0.01", true),
            ("-9", "3", true),
            ("10", "3", false),
            ("0.25", "0.5", false),
            ("1.5", "0.5", true),
            ("1.50", "0.05", true),
            ("100", "0.3", false),
            ("100.2", "0.3", true),
            ("1e30", "3", false),
            ("3e30", "3", true),
            ("3e399", "7", false),
            ("1e-300", "3", false),
            ("18446744073709551616", "2", true),
            ("5", "0", false),
        ] {
            let is_multiple = decimal(number).is_multiple_of(&decimal(of));
            assert_eq!(is_multiple, expected, "{number} of {of}");
        }
    }

    #[test]
    fn numbers_are_ordered_and_rounded() {
        let ascending = [
            "-1e3", "-10.5", "-10", "-0.2", "-0.15", "0", "0.15", "0.2", "9", "10", "10.05", "100",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(decimal(a).cmp(&decimal(b)), i.cmp(&j), "{a} {b}");
            }
        }
        let check = |text: &str, above: bool, up: &str, down: &str| {
            assert_eq!(decimal(text).whole_above(above).to_string(), up, "{text}");
            assert_eq!(decimal(text).whole_below(above).to_string(), down, "{text}");
        };
        check("5", false, "5", "5");
        check("5", true, "6", "4");
        check("-5", true, "-4", "-6");
        check("0", true, "1", "-1");
        check("-1", true, "0", "-2");
        check("99.5", false, "100", "99");
        check("-99.5", false, "-99", "-100");
        check("-0.5", true, "0", "-1");
        check("999", true, "1000", "998");
        check("-1000", true, "-999", "-1001");
    }
}

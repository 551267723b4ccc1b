//! Money is integer: amounts in nano-USD, prices in 0.0001 USD per million tokens.

use std::fmt;
use std::str::FromStr;

/// Nano-USD in one dollar.
const NANOS_PER_USD: i64 = 1_000_000_000;
const DECIMALS: usize = 9;

/// An amount in nano-USD. Shown and parsed as dollars, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(i64);

impl Nanos {
    pub const ZERO: Nanos = Nanos(0);
    pub const MAX: Nanos = Nanos(i64::MAX);

    pub const fn new(nanos: i64) -> Self {
        Nanos(nanos)
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// An amount of whole dollars. `None` if it is too large to count.
    pub fn from_usd(usd: i64) -> Option<Self> {
        usd.checked_mul(NANOS_PER_USD).map(Nanos)
    }

    pub fn checked_add(self, other: Nanos) -> Option<Self> {
        self.0.checked_add(other.0).map(Nanos)
    }

    pub fn checked_sub(self, other: Nanos) -> Option<Self> {
        self.0.checked_sub(other.0).map(Nanos)
    }

    pub fn checked_neg(self) -> Option<Self> {
        self.0.checked_neg().map(Nanos)
    }

    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = format!("{:010}", self.0.unsigned_abs());
        let (dollars, decimals) = digits.split_at(digits.len().saturating_sub(DECIMALS));
        let decimals = decimals.trim_end_matches('0');
        let point = if decimals.is_empty() { "" } else { "." };
        f.pad(&format!("{sign}{dollars}{point}{decimals}"))
    }
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("an amount is dollars like 5 or 0.25")]
    Malformed,
    #[error("an amount has at most 9 decimals")]
    TooFine,
    #[error("the amount is too large")]
    TooLarge,
}

impl FromStr for Nanos {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (negative, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (dollars, decimals) = match magnitude.split_once('.') {
            Some((dollars, decimals)) => (dollars, Some(decimals)),
            None => (magnitude, None),
        };
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(dollars) || !decimals.is_none_or(digits) {
            return Err(AmountError::Malformed);
        }
        let decimals = decimals.unwrap_or("");
        if decimals.len() > DECIMALS {
            return Err(AmountError::TooFine);
        }
        let sign = if negative { "-" } else { "" };
        let nanos = format!("{sign}{dollars}{decimals:0<DECIMALS$}");
        nanos.parse().map(Nanos).map_err(|_| AmountError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_dollars() {
        let check = |text: &str, nanos: i64, shown: &str| {
            assert_eq!(text.parse(), Ok(Nanos::new(nanos)), "{text}");
            assert_eq!(Nanos::new(nanos).to_string(), shown, "{text}");
        };
        check("5", 5_000_000_000, "5");
        check("0.25", 250_000_000, "0.25");
        check("4.999981", 4_999_981_000, "4.999981");
        check("0.000000001", 1, "0.000000001");
        check("-0.000000001", -1, "-0.000000001");
        check("-12.50", -12_500_000_000, "-12.5");
        check("007", 7_000_000_000, "7");
        check("0", 0, "0");
        check("-0", 0, "0");
        check("9223372036.854775807", i64::MAX, "9223372036.854775807");
        check("-9223372036.854775808", i64::MIN, "-9223372036.854775808");
        assert_eq!(format!("[{:>8}]", Nanos::new(250_000_000)), "[    0.25]");
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        let check = |text: &str, error: AmountError| {
            assert_eq!(text.parse::<Nanos>(), Err(error), "{text}");
        };
        for text in [
            "", "-", ".", "1.", ".5", "1.2.3", "+1", "1e3", "1,5", " 1", "1 ", "--1", "1.-5", "٣",
            "0x1", "$1",
        ] {
            check(text, AmountError::Malformed);
        }
        check("0.0000000001", AmountError::TooFine);
        check("9223372036.854775808", AmountError::TooLarge);
        check("-9223372036.854775809", AmountError::TooLarge);
        check("99999999999999999999999", AmountError::TooLarge);
    }

    proptest! {
        #[test]
        fn every_amount_survives_its_text(nanos in any::<i64>()) {
            prop_assert_eq!(Nanos::new(nanos).to_string().parse(), Ok(Nanos::new(nanos)));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            if let Ok(amount) = text.parse::<Nanos>() {
                prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            }
        }
    }
}

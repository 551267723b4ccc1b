use llguidance::derivre::RegexBuilder;
use proptest::prelude::*;

use super::*;

fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).unwrap()
}

fn matches(ast: &RegexAst, text: &str) -> bool {
    let mut builder = RegexBuilder::new();
    let expression = builder.mk(ast).unwrap();
    builder.to_regex(expression).is_match(text)
}

/// A number with few digits, so that bounds and numbers often coincide.
fn number() -> impl Strategy<Value = String> {
    let whole = prop_oneof![0..30_i64, 90..120_i64, 990..1030_i64];
    let fraction = prop_oneof![Just(String::new()), "\\.[0-9]{1,3}"];
    (any::<bool>(), whole, fraction).prop_map(|(minus, whole, fraction)| {
        format!("{}{whole}{fraction}", if minus { "-" } else { "" })
    })
}

fn bound() -> impl Strategy<Value = Option<Bound>> {
    let bound = (number(), any::<bool>()).prop_map(|(text, is_exclusive)| Bound {
        value: decimal(&text),
        is_exclusive,
    });
    proptest::option::of(bound)
}

proptest! {
    #[test]
    fn a_range_is_what_is_written(low in bound(), high in bound(), numbers in prop::collection::vec(number(), 12)) {
        let range = Range { low, high };
        let (all, whole) = (range.numbers(), range.whole_numbers());
        for text in numbers {
            let value = decimal(&text);
            // In a range with bounds zero is written without a sign.
            let expected = range.contains(&value) && !(value.is_zero() && text.starts_with('-'));
            let is_written = all.as_ref().is_some_and(|ast| matches(ast, &text));
            prop_assert_eq!(is_written || value.is_zero(), expected || value.is_zero(), "{} in {:?}", text, range);
            if value.is_zero() {
                prop_assert!(!is_written || range.contains(&value), "{} in {:?}", text, range);
            }
            if !text.contains('.') && text != "-0" {
                let is_written = whole.as_ref().is_some_and(|ast| matches(ast, &text));
                prop_assert_eq!(is_written, expected, "whole {} in {:?}", text, range);
            }
        }
    }
}

proptest! {
    /// A short number that isn't whole isn't whole as a double either.
    #[test]
    fn what_is_short_stays_what_it_is(whole in "[1-9][0-9]{0,17}", fraction in "[0-9]{0,9}[1-9]") {
        let text = format!("{whole}.{fraction}");
        if matches(&short(), &text) {
            let number: f64 = text.parse().unwrap();
            prop_assert!(number.fract() != 0.0, "{}", text);
        }
        prop_assert_eq!(matches(&short(), &whole), whole.len() <= 15);
    }
}

#[test]
fn bounds_of_any_size_are_exact() {
    let check = |low: &str, high: &str, inside: &[&str], outside: &[&str]| {
        let bound = |text: &str| {
            (!text.is_empty()).then(|| Bound {
                value: decimal(text),
                is_exclusive: false,
            })
        };
        let range = Range {
            low: bound(low),
            high: bound(high),
        };
        let whole = range.whole_numbers().unwrap_or(RegexAst::NoMatch);
        let all = range.numbers().unwrap_or(RegexAst::NoMatch);
        for text in inside {
            assert!(matches(&all, text), "{text} is in {low}..{high}");
            assert!(
                text.contains('.') || matches(&whole, text),
                "{text} is in {low}..{high}"
            );
        }
        for text in outside {
            assert!(!matches(&all, text), "{text} is not in {low}..{high}");
            assert!(!matches(&whole, text), "{text} is not in {low}..{high}");
        }
    };
    let int64 = ("-9223372036854775808", "9223372036854775807");
    check(
        int64.0,
        int64.1,
        &[int64.0, int64.1, "0", "7", "-7"],
        &["9223372036854775808", "-9223372036854775809"],
    );
    check(
        "9007199254740993",
        "9007199254740993",
        &["9007199254740993"],
        &["9007199254740992", "9007199254740994"],
    );
    let float64 = ("-1.7976931348623157e308", "1.7976931348623157e308");
    let most = decimal(float64.1).to_string();
    let beyond = format!("2{}", "0".repeat(308));
    check(
        float64.0,
        float64.1,
        &["0", "1.5", &most, &format!("-{most}")],
        &[&beyond, &format!("-{beyond}")],
    );
    check(
        "-3.4028234663852886e+38",
        "3.4028234663852886e+38",
        &["3.1", "-1"],
        &["4".repeat(39).as_str()],
    );
    check(
        "0.1",
        "0.3",
        &["0.1", "0.25", "0.30"],
        &["0.09", "0.31", "0", "1"],
    );
    check(
        "1e20",
        "",
        &["100000000000000000000", "900000000000000000000"],
        &["99999999999999999999"],
    );
    check(
        "",
        "-1e20",
        &["-100000000000000000000"],
        &["-99999999999999999999", "0"],
    );
    check("5", "4", &[], &["4", "5"]);
}

#[test]
fn a_number_has_several_spellings() {
    let check = |number: &str, text: &str, expected: bool| {
        assert_eq!(
            matches(&spellings(&decimal(number)), text),
            expected,
            "{text} is {number}"
        );
    };
    check("5", "5", true);
    check("5", "5.00", true);
    check("5", "-5", false);
    check("5", "5.01", false);
    check("0", "-0.0", true);
    check("-1.5", "-1.500", true);
    check("-1.5", "-1.5001", false);
}

//! Writes values as Python does, where `minijinja` does it differently.

use std::fmt::{self, Write};

use minijinja::Value;
use minijinja::value::ValueKind;

/// Limit on nested arrays: more than any conversation has, and few enough for the stack.
pub(super) const DEPTH_MAX: usize = 200;

/// Writes `str(value)`. Fails on values that nest deeper than [`DEPTH_MAX`]. Characters of `printable` are never escaped.
pub(super) fn write_str(
    out: &mut impl Write,
    value: &Value,
    printable: impl FnOnce() -> String,
) -> fmt::Result {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => out.write_str(text),
        (ValueKind::Undefined, _) => Ok(()),
        _ => write_repr(out, value, &printable(), DEPTH_MAX),
    }
}

/// Writes `repr(value)`.
fn write_repr(out: &mut impl Write, value: &Value, printable: &str, depth: usize) -> fmt::Result {
    let depth = depth.checked_sub(1).ok_or(fmt::Error)?;
    match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => match float(value) {
            Some(number) => out.write_str(&float_repr(number)),
            None => write!(out, "{value}"),
        },
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default(), printable),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() {
                ("(", ")")
            } else {
                ("[", "]")
            };
            out.write_str(open)?;
            for (index, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_repr(out, &item, printable, depth)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.write_char(',')?;
            }
            out.write_str(close)
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (index, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                out.write_str(if index > 0 { ", " } else { "" })?;
                write_repr(out, &key, printable, depth)?;
                out.write_str(": ")?;
                let item = value.get_item(&key).map_err(|_| fmt::Error)?;
                write_repr(out, &item, printable, depth)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

/// Whether a value nests no deeper than `depth`, so that recursion over it doesn't run out of stack.
pub(super) fn is_shallow(value: &Value, depth: usize) -> bool {
    let shallow = |item: Value| depth > 0 && is_shallow(&item, depth - 1);
    match value.kind() {
        ValueKind::Seq => value.try_iter().is_ok_and(|mut items| items.all(shallow)),
        ValueKind::Map => value
            .try_iter()
            .is_ok_and(|mut keys| keys.all(|key| value.get_item(&key).is_ok_and(shallow))),
        _ => true,
    }
}

/// The number as a float; `None` for integers.
fn float(value: &Value) -> Option<f64> {
    if value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok()
}

/// `repr` of a float: the fewest digits that identify it, with an exponent outside of 1e-4 to 1e16.
pub(super) fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return format!("{number}").to_lowercase();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("it has an exponent");
    match exponent.parse().expect("it is a number") {
        -4..16 => format!("{number:?}"),
        exponent @ ..0 => format!("{digits}e-{:02}", -exponent),
        exponent => format!("{digits}e+{exponent:02}"),
    }
}

/// Writes a text in the quotes that need fewer escapes.
fn write_quoted(out: &mut impl Write, text: &str, printable: &str) -> fmt::Result {
    let double = text.contains('\'') && !text.contains('"');
    let quote = if double { '"' } else { '\'' };
    out.write_char(quote)?;
    for character in text.chars() {
        match character {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            _ if character == quote => write!(out, "\\{character}")?,
            ' '..='~' => out.write_char(character)?,
            _ if printable.contains(character) || is_printable(character) => {
                out.write_char(character)?;
            }
            ..='\u{ff}' => write!(out, "\\x{:02x}", u32::from(character))?,
            ..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => write!(out, "\\U{:08x}", u32::from(character))?,
        }
    }
    out.write_char(quote)
}

/// Whether `repr` leaves a character unescaped. Python and Rust do so for the same categories, except for combining
/// marks, which Rust escapes only where a text begins: so a letter comes first here.
fn is_printable(character: char) -> bool {
    let mut after_letter = String::from("a");
    after_letter.push(character);
    !after_letter.escape_debug().to_string().contains("\\u")
}

/// Whether Python's `strip` strips a character: Unicode's white space, and four separators that only Python counts.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

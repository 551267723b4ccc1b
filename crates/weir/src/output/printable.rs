//! Makes foreign texts safe for a terminal: characters that would control it, or change the order of text, become escapes.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether the character is a control character (other than line feed and tab), another line terminator, or one that changes the
/// direction of text beyond itself. Direction marks (U+200E, U+200F) are allowed: Arabic and Hebrew texts use them.
fn acts(letter: char) -> bool {
    let control = letter.is_control() && letter != '\n' && letter != '\t';
    control
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text, with escapes such as `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |letter, text| {
        text.extend(letter.escape_unicode());
    })
}

/// The text for a place with one line: line feeds and tabs are escaped as well.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    let acts = |letter| acts(letter) || letter == '\n' || letter == '\t';
    escaped(text, acts, |letter, text| {
        text.extend(letter.escape_unicode());
    })
}

/// JSON with JSON's own escapes, so that its values stay the same. These characters occur only inside of its strings.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |letter, text| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    })
}

fn escaped(
    text: &str,
    acts: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.contains(&acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match acts(letter) {
            true => escape(letter, &mut escaped),
            false => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        let rows = [
            ("", "", ""),
            (
                "naïve 👩‍💻 שלום\u{200f}",
                "naïve 👩‍💻 שלום\u{200f}",
                "naïve 👩‍💻 שלום\u{200f}",
            ),
            ("a\n\tb", "a\n\tb", "a\\u{a}\\u{9}b"),
            ("\u{1b}[31mred", "\\u{1b}[31mred", "\\u{1b}[31mred"),
            (
                "over\rwritten\u{7f}",
                "over\\u{d}written\\u{7f}",
                "over\\u{d}written\\u{7f}",
            ),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}", "\\u{9b}2J\\u{85}"),
            (
                "\u{202e}gpj\u{2066}",
                "\\u{202e}gpj\\u{2066}",
                "\\u{202e}gpj\\u{2066}",
            ),
            ("a\u{2028}b", "a\\u{2028}b", "a\\u{2028}b"),
        ];
        for (text, shown, one_line) in rows {
            assert_eq!((&*printable(text), &*line(text)), (shown, one_line));
            let text = serde_json::to_string(text).unwrap();
            let value: String = serde_json::from_str(&json(&text)).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert!(!json(&text).contains(acts), "{text}");
        }
    }
}

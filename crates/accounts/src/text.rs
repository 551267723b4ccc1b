//! Texts that people read in lists and logs.

/// The rule of [`is_plain`], worded for error messages.
pub(crate) const PLAIN: &str = "no control, bidirectional or invisible characters";

/// Whether a text contains no misleading characters, so that lists and terminals show it as it is.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.chars().any(misleads)
}

/// Control characters act on a terminal; bidirectional and invisible ones make a text look like another one
/// (<https://www.unicode.org/reports/tr36/>, <https://trojansource.codes>). Joiners are not among them: Persian and
/// emoji need those.
pub(crate) fn misleads(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            // Bidirectional marks, embeddings, overrides and isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Ends of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // Characters without a width, tags, and fillers.
            | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}'
            | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_found() {
        let check = |text: &str, plain| assert_eq!(is_plain(text), plain, "{text:?}");
        for plain in [
            "",
            "laptop",
            "Büro 2 – naïve",
            "مفتاح",
            "می‌خواهم",
            "👩‍💻",
            "a\u{300}",
        ] {
            check(plain, true);
        }
        for letter in [
            '\0',
            '\n',
            '\t',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200e}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            check(&format!("key{letter}s"), false);
        }
    }
}

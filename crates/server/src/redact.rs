//! Hides keys in texts that the log or an answer repeats, such as a path or a model's name.

use std::borrow::Cow;

const PREFIX: &str = "sk_";

/// Shortens every key in the text to its prefix.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains(PREFIX) {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, key) = rest.split_at(at);
        let key = &key[PREFIX.len()..];
        redacted.push_str(before);
        redacted.push_str(PREFIX);
        rest = key.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        // A word like `task_one` isn't a key.
        let word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        match key.len() - rest.len() {
            0 => {}
            length if word => redacted.push_str(&key[..length]),
            _ => redacted.push('…'),
        }
    }
    redacted.push_str(rest);
    Cow::Owned(redacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_and_words_are_not() {
        let rows = [
            ("", ""),
            ("model not found: foo", "model not found: foo"),
            ("sk_abc_DEF-123", "sk_…"),
            ("/v1/sk_a_b/sk_c?sk_d", "/v1/sk_…/sk_…?sk_…"),
            ("send `Bearer sk_…`", "send `Bearer sk_…`"),
            ("task_one and sk_two", "task_one and sk_…"),
            ("sk_", "sk_"),
            ("üsk_ü", "üsk_ü"),
        ];
        for (text, redacted) in rows {
            assert_eq!(redact(text), redacted);
        }
    }
}

//! Frames of a stream of server-sent events.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The last frame of a stream that ended without an error.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends `data: {json}` and the empty line that ends a frame. Compact JSON has no line breaks, and Unicode's line
/// breaks, at which some SSE readers split lines as well, are escaped.
pub fn encode<T: Serialize>(frames: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    let start = frames.len();
    frames.extend_from_slice(b"data: ");
    let written = value.serialize(&mut Serializer::with_formatter(&mut *frames, OneLine));
    match &written {
        Ok(()) => frames.extend_from_slice(b"\n\n"),
        Err(_) => frames.truncate(start),
    }
    written
}

/// Compact JSON on one line, for readers that split at Unicode's line breaks as well.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        // The UTF-8 of each of these line breaks begins with one of two bytes, which few texts have.
        for at in memchr::memchr2_iter(0xc2, 0xe2, fragment.as_bytes()) {
            let escaped: (&[u8], usize) = match fragment.as_bytes()[at..] {
                [0xc2, 0x85, ..] => (b"\\u0085", 2),
                [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
                [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
                _ => continue,
            };
            out.write_all(&fragment.as_bytes()[written..at])?;
            out.write_all(escaped.0)?;
            written = at + escaped.1;
        }
        out.write_all(&fragment.as_bytes()[written..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line_of_data_and_an_empty_one() {
        let mut frames = Vec::new();
        encode(&mut frames, &"a\nb\rÂâé").unwrap();
        encode(&mut frames, &1).unwrap();
        frames.extend_from_slice(DONE);
        assert_eq!(
            String::from_utf8(frames).unwrap(),
            "data: \"a\\nb\\rÂâé\"\n\ndata: 1\n\ndata: [DONE]\n\n"
        );
    }

    #[test]
    fn line_breaks_of_unicode_are_escaped() {
        let check = |text: &str, json: &str| {
            let mut frames = Vec::new();
            encode(&mut frames, &text).unwrap();
            assert_eq!(
                String::from_utf8(frames).unwrap(),
                format!("data: {json}\n\n")
            );
            assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
        };
        check("\u{2028}", r#""\u2028""#);
        check("a\u{85}b\u{2029}\u{2028}c", r#""a\u0085b\u2029\u2028c""#);
        // The neighbouring characters, and others with the same first bytes, aren't escaped.
        check(
            "\u{84}\u{86}\u{2027}\u{202a}\u{2085}Å…",
            "\"\u{84}\u{86}\u{2027}\u{202a}\u{2085}Å…\"",
        );
        // Python's `splitlines` breaks at these as well, and JSON always escapes them.
        check(
            "\u{b}\u{c}\u{1c}\u{1d}\u{1e}",
            r#""\u000b\f\u001c\u001d\u001e""#,
        );
        let mut frames = Vec::new();
        let object = std::collections::BTreeMap::from([("\u{2028}", vec![1.5])]);
        encode(&mut frames, &object).unwrap();
        assert_eq!(frames, b"data: {\"\\u2028\":[1.5]}\n\n");
    }
}

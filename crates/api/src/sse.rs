//! Frames of a stream.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Ends a stream that went well.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends `data: {json}` and the empty line that ends a frame. JSON has no line breaks of its own, and those of Unicode,
/// at which some readers split lines, are escaped.
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

/// Compact JSON in which every reader's line has its end where the frame's is.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut written = 0;
        // All of them begin with one of two bytes, which few texts have.
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
        // Their neighbours, and others that begin or go on as they do.
        check(
            "\u{84}\u{86}\u{2027}\u{202a}\u{2085}Å…",
            "\"\u{84}\u{86}\u{2027}\u{202a}\u{2085}Å…\"",
        );
        // Python's `splitlines` breaks at these too, and JSON escapes them anyway.
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

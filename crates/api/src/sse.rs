//! Frames of a stream.

use serde::Serialize;

/// Ends a stream that went well.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends `data: {json}` and the empty line that ends a frame. JSON has no line breaks of its own.
pub fn encode<T: Serialize>(frames: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    let start = frames.len();
    frames.extend_from_slice(b"data: ");
    let written = serde_json::to_writer(&mut *frames, value);
    match &written {
        Ok(()) => frames.extend_from_slice(b"\n\n"),
        Err(_) => frames.truncate(start),
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_line_of_data_and_an_empty_one() {
        let mut frames = Vec::new();
        encode(&mut frames, &"a\nb\r\u{2028}").unwrap();
        encode(&mut frames, &1).unwrap();
        frames.extend_from_slice(DONE);
        assert_eq!(
            String::from_utf8(frames).unwrap(),
            "data: \"a\\nb\\r\u{2028}\"\n\ndata: 1\n\ndata: [DONE]\n\n"
        );
    }
}

//! The header that lists the parts of a request's schemas that aren't enforced.

use http::{HeaderMap, HeaderName, HeaderValue};
use weir_engine::Relaxed;

/// A list of JSON pointers into the request, separated by commas.
pub(crate) const X_WEIR_SCHEMA_RELAXED: HeaderName =
    HeaderName::from_static("x-weir-schema-relaxed");
/// Longest value of the header, in characters.
pub(crate) const HEADER_CHARS_MAX: usize = 1_024;

/// Adds the header if there is anything to list. Pointers that don't fit are counted at the end, as in `+3`.
pub(crate) fn list(headers: &mut HeaderMap, relaxed: &[Relaxed]) {
    if relaxed.is_empty() {
        return;
    }
    let mut value = String::new();
    for (place, Relaxed { pointer, .. }) in relaxed.iter().enumerate() {
        let pointer = escaped(pointer);
        let comma = if value.is_empty() { "" } else { ", " };
        // Leaves room for the number of pointers that are left out.
        if value.len() + comma.len() + pointer.len() > HEADER_CHARS_MAX - 8 {
            value += &format!("{comma}+{}", relaxed.len() - place);
            break;
        }
        value += comma;
        value += &pointer;
    }
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(X_WEIR_SCHEMA_RELAXED, value);
    }
}

/// A pointer with only the characters that a URI fragment may have (RFC 6901, section 6), and without commas.
fn escaped(pointer: &str) -> String {
    let mut escaped = String::with_capacity(pointer.len());
    for byte in pointer.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'~' | b'-' | b'_' | b'.' | b'$' => {
                escaped.push(char::from(byte));
            }
            other => escaped += &format!("%{other:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_short_and_safe() {
        let check = |pointers: &[String], expected: Option<&str>| {
            let relaxed: Vec<_> = pointers
                .iter()
                .map(|pointer| Relaxed {
                    pointer: pointer.clone(),
                    reason: String::new(),
                })
                .collect();
            let mut headers = HeaderMap::new();
            list(&mut headers, &relaxed);
            let value = headers
                .get(X_WEIR_SCHEMA_RELAXED)
                .map(|value| value.to_str().unwrap());
            assert_eq!(value, expected);
        };
        check(&[], None);
        check(
            &["/a/$ref".to_owned(), "/b~1c,ü\r\n".to_owned()],
            Some("/a/$ref, /b~1c%2C%C3%BC%0D%0A"),
        );
        let long: Vec<_> = (0..300).map(|i| format!("/properties/{i:04}")).collect();
        let listed: Vec<_> = long[..56].to_vec();
        let expected = format!("{}, +244", listed.join(", "));
        assert!(expected.len() <= HEADER_CHARS_MAX, "{}", expected.len());
        check(&long, Some(&expected));
        check(&["/x".repeat(2_000)], Some("+1"));
    }
}

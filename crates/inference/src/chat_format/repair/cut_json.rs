//! Reads JSON that was cut off, such as the arguments of a call when the answer reached `max_tokens`.

use serde_json::{Map, Value};

/// Limit on the nesting of objects and arrays.
const DEPTH_MAX: usize = 64;

/// The value of a text whose end is missing, with everything that is complete in it; `None` if the text isn't JSON.
pub(super) fn read(text: &str) -> Option<Value> {
    let mut cut = Cut { rest: text };
    let value = cut.value(DEPTH_MAX)?;
    cut.skip_space();
    cut.rest.is_empty().then_some(value)
}

struct Cut<'a> {
    rest: &'a str,
}

impl Cut<'_> {
    /// `None` if there is no value, or too little of one.
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_space();
        match self.rest.chars().next()? {
            '{' => self.object(depth.checked_sub(1)?),
            '[' => self.array(depth.checked_sub(1)?),
            '"' => self.string().map(Value::String),
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.skip("{");
        let mut object = Map::new();
        while !self.closes("}")? {
            // A name that is cut off, or has no value, is left out.
            if !self.rest.starts_with('"') && !self.rest.is_empty() {
                return None;
            }
            let Some(name) = self.string().filter(|_| !self.rest.is_empty()) else {
                break;
            };
            self.skip_space();
            if !self.skip(":") && !self.rest.is_empty() {
                return None;
            }
            match self.value(depth) {
                Some(value) => drop(object.insert(name, value)),
                None if self.rest.is_empty() => break,
                None => return None,
            }
        }
        Some(Value::Object(object))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.skip("[");
        let mut array = Vec::new();
        while !self.closes("]")? {
            match self.value(depth) {
                Some(value) => array.push(value),
                None if self.rest.is_empty() => break,
                None => return None,
            }
        }
        Some(Value::Array(array))
    }

    /// Whether an array or an object ends here, by its bracket or with the text. Never `None`.
    fn closes(&mut self, bracket: &str) -> Option<bool> {
        self.skip_space();
        if self.skip(bracket) || self.rest.is_empty() {
            return Some(true);
        }
        self.skip(",");
        self.skip_space();
        Some(self.rest.is_empty())
    }

    /// Reads a string, as far as it is there.
    fn string(&mut self) -> Option<String> {
        let inside = self.rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = inside.find(|c| match (c, escaped) {
            ('"', false) => true,
            _ => {
                escaped = c == '\\' && !escaped;
                false
            }
        });
        let text = &inside[..end.unwrap_or(inside.len())];
        self.rest = end.map_or("", |end| &inside[end + 1..]);
        let read = |text: &str| serde_json::from_str(&format!("\"{text}\"")).ok();
        // An escape has at most 12 characters: those of a surrogate pair.
        let ends = text.char_indices().map(|(at, _)| at).rev().take(12);
        let mut ends = [text.len()].into_iter().chain(ends);
        ends.find_map(|end| read(&text[..end]))
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Option<Value> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at(end);
        let value = serde_json::from_str(scalar).ok();
        // A word that the text's end cuts off may be the beginning of a valid one.
        if value.is_some() || rest.is_empty() {
            self.rest = rest;
        }
        value
    }

    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_there_of_a_value() {
        let check = |text: &str, expected: Value| assert_eq!(read(text), Some(expected), "{text}");
        check(r#"{"a": "b"#, json!({"a": "b"}));
        check(r#"{"a": "b", "c"#, json!({"a": "b"}));
        check(r#"{"a": "b", "c":"#, json!({"a": "b"}));
        check(r#"{"a": [1, {"b": tru"#, json!({"a": [1, {}]}));
        check(r#"{"a": "x\u00"#, json!({"a": "x"}));
        check(r#"{"a": "x\ud83d\ude"#, json!({"a": "x"}));
        check(r#"{"a": "x\"#, json!({"a": "x"}));
        check(r#"{"a": "x\\"#, json!({"a": "x\\"}));
        check(r#"{"a": 12"#, json!({"a": 12}));
        check(r#"{"a": -"#, json!({}));
        check("{", json!({}));
        check("[1, ", json!([1]));
        check("\"ab", json!("ab"));
        for text in [
            "",
            "hello",
            "{a: 1}",
            "{\"a\" 1}",
            "{\"a\": b}",
            "{} x",
            "]",
            &"[".repeat(65),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_cut_off_is_an_object(at in 1_usize..93) {
            let text = r#"{"a":"é\n\ud83d\ude00","b":[1,-2.5e3,true,null,{"c":{}}],"d":{"e":"","f":[[]]},"g":false,"h":9}"#;
            let whole: Value = serde_json::from_str(text).unwrap();
            let cut = read(&text[..text.floor_char_boundary(at)]).unwrap();
            let Value::Object(cut) = cut else { panic!("{cut}") };
            // Names are in order, and all values except the last are complete.
            let kept: Vec<_> = cut.iter().collect();
            for (i, (name, value)) in kept.iter().enumerate() {
                if i + 1 < kept.len() {
                    prop_assert_eq!(*value, &whole[name.as_str()]);
                }
            }
            prop_assert!(cut.keys().eq(whole.as_object().unwrap().keys().take(cut.len())));
        }
    }
}

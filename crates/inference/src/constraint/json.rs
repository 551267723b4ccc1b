//! A JSON reader that keeps all digits of numbers, and the JSON pointer of every value.

use std::fmt::Write;

use indexmap::IndexMap;

/// Limit on the nesting of arrays and objects.
pub(super) const JSON_DEPTH_MAX: usize = 128;

/// The index of a value in its [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(u32);

impl ValueId {
    /// The index of the value in [`Document::iter`].
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum JsonValue {
    Null,
    Bool(bool),
    /// The number's text, as it was written.
    Number(Box<str>),
    String(Box<str>),
    Array(Vec<ValueId>),
    /// Members in the order in which their names first occur. A repeated name has its last value.
    Object(IndexMap<Box<str>, ValueId>),
}

impl JsonValue {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            JsonValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value's type, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            JsonValue::Null => "null",
            JsonValue::Bool(_) => "a boolean",
            JsonValue::Number(_) => "a number",
            JsonValue::String(_) => "a string",
            JsonValue::Array(_) => "an array",
            JsonValue::Object(_) => "an object",
        }
    }
}

/// All values of a JSON text. The root is the first.
#[derive(Debug)]
pub(crate) struct Document {
    values: Vec<JsonValue>,
    /// The container of each value, and the value's index in it. The root's container is itself.
    parents: Vec<(ValueId, usize)>,
}

/// A container whose end hasn't been read.
struct Open {
    id: ValueId,
    /// In an object, the name of the member whose value comes next.
    name: Option<Box<str>>,
}

impl Document {
    pub(crate) const ROOT: ValueId = ValueId(0);

    /// Parses a text without recursion. `None` if it isn't JSON or is nested too deeply.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut document = Document {
            values: Vec::new(),
            parents: Vec::new(),
        };
        let mut reader = Reader { text, at: 0 };
        let mut open: Vec<Open> = Vec::new();
        loop {
            // Each iteration reads one value, or the end of an empty container.
            let ends_empty = matches!(reader.peek()?, b']' | b'}');
            if !ends_empty {
                let value = reader.value()?;
                let opens = matches!(value, JsonValue::Array(_) | JsonValue::Object(_));
                let id = document.push(value, open.last_mut())?;
                if opens {
                    if open.len() == JSON_DEPTH_MAX {
                        return None;
                    }
                    open.push(Open { id, name: None });
                    if document.begins_with_name(id) && reader.peek()? != b'}' {
                        open.last_mut()?.name = Some(reader.name()?);
                    }
                    continue;
                }
            } else if open.last().is_none_or(|open| open.name.is_some()) {
                return None;
            }
            // After a value comes a comma, or the end of one or more containers.
            loop {
                let Some(innermost) = open.last_mut() else {
                    return reader.is_at_end().then_some(document);
                };
                let is_object = document.begins_with_name(innermost.id);
                match reader.next()? {
                    b',' => {
                        if is_object {
                            innermost.name = Some(reader.name()?);
                        }
                        if matches!(reader.peek()?, b']' | b'}') {
                            return None;
                        }
                        break;
                    }
                    b'}' if is_object => drop(open.pop()),
                    b']' if !is_object => drop(open.pop()),
                    _ => return None,
                }
            }
        }
    }

    fn begins_with_name(&self, id: ValueId) -> bool {
        matches!(self.get(id), JsonValue::Object(_))
    }

    fn push(&mut self, value: JsonValue, within: Option<&mut Open>) -> Option<ValueId> {
        let id = ValueId(u32::try_from(self.values.len()).ok()?);
        self.values.push(value);
        let parent = match within {
            None => (id, 0),
            Some(open) => match &mut self.values[open.id.0 as usize] {
                JsonValue::Array(items) => {
                    items.push(id);
                    (open.id, items.len() - 1)
                }
                JsonValue::Object(entries) => {
                    let (place, _) = entries.insert_full(open.name.take()?, id);
                    (open.id, place)
                }
                _ => return None,
            },
        };
        self.parents.push(parent);
        Some(id)
    }

    pub(crate) fn get(&self, id: ValueId) -> &JsonValue {
        &self.values[id.0 as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn member(&self, id: ValueId, name: &str) -> Option<ValueId> {
        match self.get(id) {
            JsonValue::Object(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// All values in the order of the text, with their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ValueId, &JsonValue)> {
        (0..).map(ValueId).zip(&self.values)
    }

    pub(crate) fn parent(&self, id: ValueId) -> Option<ValueId> {
        let (parent, _) = self.parents[id.0 as usize];
        (parent != id).then_some(parent)
    }

    /// The name of a value in the object that has it.
    pub(crate) fn name(&self, id: ValueId) -> Option<&str> {
        let (parent, place) = self.parents[id.0 as usize];
        match self.get(parent) {
            JsonValue::Object(entries) if parent != id => Some(entries.get_index(place)?.0),
            _ => None,
        }
    }

    /// The JSON pointer of a value (RFC 6901); empty for the root.
    pub(crate) fn pointer(&self, id: ValueId) -> String {
        let mut path = Vec::new();
        let mut at = id;
        while let Some(parent) = self.parent(at) {
            path.push((parent, self.parents[at.0 as usize].1));
            at = parent;
        }
        let mut pointer = String::new();
        for (parent, place) in path.into_iter().rev() {
            pointer.push('/');
            match self.get(parent) {
                JsonValue::Object(entries) => {
                    let name = entries.get_index(place).map_or("", |(name, _)| name);
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
                _ => {
                    // Writing to a string can't fail.
                    let _ = write!(pointer, "{place}");
                }
            }
        }
        pointer
    }

    /// Resolves a JSON pointer relative to the value `from`.
    pub(crate) fn follow(&self, from: ValueId, pointer: &str) -> Option<ValueId> {
        let Some(path) = pointer.strip_prefix('/') else {
            return pointer.is_empty().then_some(from);
        };
        path.split('/').try_fold(from, |at, segment| {
            let name = segment.replace("~1", "/").replace("~0", "~");
            match self.get(at) {
                JsonValue::Array(items) => items.get(name.parse::<usize>().ok()?).copied(),
                _ => self.member(at, &name),
            }
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += blanks.count();
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A scalar, or the beginning of a container.
    fn value(&mut self) -> Option<JsonValue> {
        Some(match self.peek()? {
            b'{' => {
                self.at += 1;
                JsonValue::Object(IndexMap::new())
            }
            b'[' => {
                self.at += 1;
                JsonValue::Array(Vec::new())
            }
            b'"' => JsonValue::String(self.string()?),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ']', '}', ' ', '\n', '\r', '\t']);
                let word = &rest[..end.unwrap_or(rest.len())];
                self.at += word.len();
                match word {
                    "null" => JsonValue::Null,
                    "true" => JsonValue::Bool(true),
                    "false" => JsonValue::Bool(false),
                    // serde_json decides whether this is a number.
                    _ => {
                        serde_json::from_str::<&serde_json::value::RawValue>(word).ok()?;
                        JsonValue::Number(word.into())
                    }
                }
            }
        })
    }

    fn string(&mut self) -> Option<Box<str>> {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut end = 1;
        while *bytes.get(end)? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.at += end + 1;
        serde_json::from_str(rest.get(..=end)?).ok()
    }

    fn name(&mut self) -> Option<Box<str>> {
        if self.peek()? != b'"' {
            return None;
        }
        let name = self.string()?;
        (self.next()? == b':').then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_values_with_pointers() {
        let text = r#" {"a/b": [1, -2.50e+3, [], {}], "~": {"c": "ü\n"}, "a/b": [null, true, 12345678901234567890123]} "#;
        let document = Document::parse(text).unwrap();
        let check = |pointer: &str, expected: JsonValue| {
            let id = document.follow(Document::ROOT, pointer).unwrap();
            assert_eq!(document.get(id), &expected, "{pointer}");
            assert_eq!(document.pointer(id), pointer);
        };
        check("/a~1b/0", JsonValue::Null);
        check("/a~1b/1", JsonValue::Bool(true));
        check(
            "/a~1b/2",
            JsonValue::Number("12345678901234567890123".into()),
        );
        check("/~0/c", JsonValue::String("ü\n".into()));
        assert_eq!(document.follow(Document::ROOT, "/x"), None);
        assert_eq!(document.follow(Document::ROOT, "/a~1b/9"), None);
        for scalar in ["1e5", "\"\"", "null", "[]", "{}", "[[],[1]]", "{\"\":{}}"] {
            assert!(Document::parse(scalar).is_some(), "{scalar}");
        }
        for broken in [
            "",
            "[",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1}",
            "1 2",
            "01",
            "+1",
            "nul",
            "\"",
            "\"\\",
            "[,1]",
            "]",
            "{]",
            "NaN",
            "\"\\ud800\"",
        ] {
            assert!(Document::parse(broken).is_none(), "{broken}");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Document::parse(&nested(JSON_DEPTH_MAX)).is_some());
        assert!(Document::parse(&nested(JSON_DEPTH_MAX + 1)).is_none());
    }
}

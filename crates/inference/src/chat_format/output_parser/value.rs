//! Finds the end of a JSON value in text that comes one character at a time, and decodes JSON strings.

/// A value that is being read. Only its brackets and strings are looked at.
#[derive(Debug)]
pub(super) struct Value {
    shape: Shape,
    in_string: bool,
    escaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// An array or object, with this many open brackets.
    Nested(u32),
    Text,
    /// A number, `true`, `false` or `null`.
    Word,
}

/// A character's place relative to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Inside,
    Last,
    /// The value ended before this character.
    Behind,
}

impl Value {
    /// A value that begins with the character `first`, which must not be white space.
    pub(super) fn new(first: char) -> Self {
        Value {
            shape: match first {
                '{' | '[' => Shape::Nested(1),
                '"' => Shape::Text,
                _ => Shape::Word,
            },
            in_string: first == '"',
            escaped: false,
        }
    }

    pub(super) fn is_in_string(&self) -> bool {
        self.in_string
    }

    /// Takes the next character and returns its place.
    pub(super) fn step(&mut self, c: char) -> Place {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if c == '\\' {
                self.escaped = true;
            } else if c == '"' {
                self.in_string = false;
                if self.shape == Shape::Text {
                    return Place::Last;
                }
            }
            return Place::Inside;
        }
        match (&mut self.shape, c) {
            (Shape::Word, ',' | '}' | ']' | ' ' | '\n' | '\r' | '\t') => return Place::Behind,
            (Shape::Nested(depth), '{' | '[') => *depth += 1,
            (Shape::Nested(depth), '}' | ']') => {
                *depth -= 1;
                if *depth == 0 {
                    return Place::Last;
                }
            }
            (Shape::Nested(_), '"') => self.in_string = true,
            _ => {}
        }
        Place::Inside
    }
}

/// Decodes the inside of a JSON string, one character at a time.
#[derive(Debug, Default)]
pub(super) struct Unescape {
    escape: Escape,
    /// The high surrogate of a pair whose low surrogate hasn't come yet.
    high: Option<u32>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    Begun,
    Hex {
        digits: u32,
        unit: u32,
    },
}

impl Unescape {
    pub(super) fn step(&mut self, c: char, out: &mut impl FnMut(char)) {
        match (self.escape, c) {
            (Escape::None, '\\') => self.escape = Escape::Begun,
            (Escape::None, c) => self.plain(c, out),
            (Escape::Begun, 'u') => self.escape = Escape::Hex { digits: 0, unit: 0 },
            (Escape::Begun, c) => {
                self.escape = Escape::None;
                let plain = match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    c => c,
                };
                self.plain(plain, out);
            }
            (Escape::Hex { digits, unit }, c) => match c.to_digit(16) {
                Some(digit) if digits == 3 => {
                    self.escape = Escape::None;
                    self.unit(unit * 16 + digit, out);
                }
                Some(digit) => {
                    self.escape = Escape::Hex {
                        digits: digits + 1,
                        unit: unit * 16 + digit,
                    };
                }
                None => {
                    self.escape = Escape::None;
                    self.plain(char::REPLACEMENT_CHARACTER, out);
                    self.plain(c, out);
                }
            },
        }
    }

    fn plain(&mut self, c: char, out: &mut impl FnMut(char)) {
        if self.high.take().is_some() {
            out(char::REPLACEMENT_CHARACTER);
        }
        out(c);
    }

    /// Takes a UTF-16 code unit.
    fn unit(&mut self, unit: u32, out: &mut impl FnMut(char)) {
        match (self.high, unit) {
            (Some(high), 0xDC00..=0xDFFF) => {
                self.high = None;
                let both = 0x1_0000 + ((high - 0xD800) << 10) + (unit - 0xDC00);
                out(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (_, 0xD800..=0xDBFF) => {
                if self.high.replace(unit).is_some() {
                    out(char::REPLACEMENT_CHARACTER);
                }
            }
            _ => self.plain(
                char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
                out,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stand_for_what_serde_says() {
        let check = |json: &str, expected: &str| {
            let mut unescape = Unescape::default();
            let mut text = String::new();
            for c in json.chars() {
                unescape.step(c, &mut |c| text.push(c));
            }
            assert_eq!(text, expected, "{json}");
        };
        for text in ["", "plain", "a\"b\\c/\n\r\t\u{8}\u{c}\u{1}", "ü語🙂"] {
            let json = serde_json::to_string(text).unwrap();
            check(&json[1..json.len() - 1], text);
        }
        check("\\u00e9\\ud83d\\ude42!", "é🙂!");
        check("\\ud83dx", "\u{fffd}x");
        check("\\ud83d\\ud83d\\ude42", "\u{fffd}🙂");
        check("\\ude42\\u12x", "\u{fffd}\u{fffd}x");
    }

    #[test]
    fn values_end_where_they_end() {
        let check = |text: &str, expected: &str| {
            let mut chars = text.chars();
            let first = chars.next().unwrap();
            let mut value = Value::new(first);
            let mut seen = String::from(first);
            for c in chars {
                match value.step(c) {
                    Place::Inside => seen.push(c),
                    Place::Last => {
                        seen.push(c);
                        break;
                    }
                    Place::Behind => break,
                }
            }
            assert_eq!(seen, expected, "{text}");
        };
        check("{} x", "{}");
        check(r#"{"a":[1,{"b":"}]\"}"}]},"#, r#"{"a":[1,{"b":"}]\"}"}]}"#);
        check(r#""a\\"b"#, r#""a\\""#);
        check("12.5, 3", "12.5");
        check("true}", "true");
        check("[[1],", "[[1],");
    }
}

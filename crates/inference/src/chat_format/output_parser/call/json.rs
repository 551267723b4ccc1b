//! Tool calls as JSON objects: `{"name": …, "arguments": {…}}`, one or a list of them.

use weir_engine::request::Tool;

use super::step::{Close, Closing, Step, find, is_begun};
use crate::chat_format::output_parser::out::Out;
use crate::chat_format::output_parser::value::{Place, Unescape, Value};

/// Keys that a call without a mark may have. An object with any other key isn't a call.
const BARE_KEYS: [&str; 7] = [
    "name",
    "tool_name",
    "function",
    "arguments",
    "parameters",
    "type",
    "id",
];
const KEY_BYTES_MAX: usize = 64;

#[derive(Debug)]
pub(in crate::chat_format::output_parser) struct JsonCalls {
    close: Close,
    bare: bool,
    at: At,
    in_list: bool,
    object: Object,
}

/// The state of the object that is being read.
#[derive(Debug, Default)]
struct Object {
    key: String,
    name: String,
    is_named: bool,
    /// Objects around the one with the name, as in `{"function": {"name": …}}`.
    nested: u32,
    /// Arguments that came before the name.
    early: String,
    has_arguments: bool,
}

#[derive(Debug)]
enum At {
    Begin,
    BeforeKey,
    Key,
    Colon,
    BeforeValue,
    Name,
    Arguments(Arguments),
    Other(Value),
    After,
}

#[derive(Debug)]
enum Arguments {
    Object(Value),
    /// JSON within a JSON string.
    Text(Value, Unescape),
    /// `null` means no arguments; any other word is passed on as it is.
    Word(Value, String),
}

impl JsonCalls {
    pub(super) fn new(close: &'static str, bare: bool) -> Self {
        JsonCalls {
            close: Close::new(close),
            bare,
            at: At::Begin,
            in_list: false,
            object: Object::default(),
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        self.object.is_named || matches!(self.at, At::After)
    }

    pub(super) fn step(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        if self.is_in_string() {
            return self.read(c, tools, out);
        }
        match self.close.step(c) {
            Closing::Held => Step::More,
            Closing::Closed if self.is_certain() => {
                self.end_object(out);
                Step::Ended(String::new())
            }
            Closing::Closed => Step::refused(c),
            Closing::Released(text) => self.read_all(&text, tools, out),
        }
    }

    pub(super) fn finish(&mut self, ended: bool, out: &mut Out) {
        if let At::Arguments(Arguments::Word(_, word)) = &mut self.at {
            let word = std::mem::take(word);
            self.object.arguments(no_null(&word), out);
        }
        if ended {
            self.end_object(out);
        }
    }

    fn is_in_string(&self) -> bool {
        match &self.at {
            At::Key | At::Name => true,
            At::Arguments(
                Arguments::Object(value) | Arguments::Text(value, _) | Arguments::Word(value, _),
            )
            | At::Other(value) => value.is_in_string(),
            At::Begin | At::BeforeKey | At::Colon | At::BeforeValue | At::After => false,
        }
    }

    fn read_all(&mut self, text: &str, tools: &[Tool], out: &mut Out) -> Step {
        for (at, c) in text.char_indices() {
            let step = self.read(c, tools, out);
            if step != Step::More {
                return step.before(&text[at + c.len_utf8()..]);
            }
        }
        Step::More
    }

    fn read(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        match &mut self.at {
            At::Begin => match c {
                '{' => self.begin_object(),
                '[' if !self.in_list => self.in_list = true,
                c if c.is_whitespace() => {}
                _ => return Step::refused(c),
            },
            At::BeforeKey => match c {
                '"' => {
                    self.object.key.clear();
                    self.at = At::Key;
                }
                '}' => return self.end_or_refuse(c, out),
                c if c.is_whitespace() || c == ',' || self.object.is_named => {}
                _ => return Step::refused(c),
            },
            At::Key => match c {
                '"' => {
                    self.at = At::Colon;
                    let is_known = BARE_KEYS.contains(&self.object.key.as_str());
                    if self.bare && !self.object.is_named && !is_known {
                        return Step::refused(c);
                    }
                }
                c if self.object.key.len() < KEY_BYTES_MAX => self.object.key.push(c),
                _ => {}
            },
            At::Colon => match c {
                ':' => self.at = At::BeforeValue,
                c if c.is_whitespace() || self.object.is_named => {}
                _ => return Step::refused(c),
            },
            At::BeforeValue if c.is_whitespace() => {}
            At::BeforeValue => self.begin_value(c, out),
            At::Name => return self.read_name(c, tools, out),
            At::Arguments(_) | At::Other(_) => return self.read_value(c, tools, out),
            At::After => return self.read_after(c),
        }
        Step::More
    }

    fn begin_object(&mut self) {
        self.object = Object::default();
        self.at = At::BeforeKey;
    }

    fn begin_value(&mut self, c: char, out: &mut Out) {
        let object = &mut self.object;
        self.at = match (object.key.as_str(), c) {
            ("name" | "tool_name" | "function", '"') if !object.is_named => {
                object.name.clear();
                At::Name
            }
            ("function", '{') if !object.is_named => {
                object.nested += 1;
                At::BeforeKey
            }
            ("arguments" | "parameters", c) if !object.has_arguments => {
                let value = Value::new(c);
                match c {
                    '{' | '[' => {
                        object.argument(c, out);
                        At::Arguments(Arguments::Object(value))
                    }
                    '"' => At::Arguments(Arguments::Text(value, Unescape::default())),
                    c => At::Arguments(Arguments::Word(value, String::from(c))),
                }
            }
            (_, c) => At::Other(Value::new(c)),
        };
    }

    fn read_name(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        let object = &mut self.object;
        if c != '"' {
            object.name.push(c);
            let is_begun = is_begun(tools, &object.name);
            return if is_begun {
                Step::More
            } else {
                Step::refused(c)
            };
        }
        if find(tools, &object.name).is_none() {
            return Step::refused(c);
        }
        object.is_named = true;
        out.call(&object.name);
        out.arguments(&std::mem::take(&mut object.early));
        self.at = At::BeforeKey;
        Step::More
    }

    fn read_value(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        let place = match &mut self.at {
            At::Arguments(Arguments::Object(value)) => {
                self.object.argument(c, out);
                value.step(c)
            }
            At::Arguments(Arguments::Text(value, unescape)) => {
                let place = value.step(c);
                if place == Place::Inside {
                    unescape.step(c, &mut |c| self.object.argument(c, out));
                }
                place
            }
            At::Arguments(Arguments::Word(value, word)) => {
                let place = value.step(c);
                if place == Place::Behind {
                    self.object.arguments(no_null(word), out);
                } else {
                    word.push(c);
                }
                place
            }
            At::Other(value) => value.step(c),
            _ => unreachable!("only called within a value"),
        };
        match place {
            Place::Inside => Step::More,
            Place::Last => {
                self.at = At::BeforeKey;
                Step::More
            }
            Place::Behind => {
                self.at = At::BeforeKey;
                self.read(c, tools, out)
            }
        }
    }

    fn read_after(&mut self, c: char) -> Step {
        match c {
            ',' if self.in_list => self.at = At::Begin,
            ']' if self.in_list => self.in_list = false,
            '{' => self.begin_object(),
            c if c.is_whitespace() => {}
            ';' if self.bare => {}
            c => return Step::ended(c),
        }
        Step::More
    }

    fn end_or_refuse(&mut self, c: char, out: &mut Out) -> Step {
        if self.object.nested > 0 {
            self.object.nested -= 1;
            return Step::More;
        }
        if !self.object.is_named {
            return Step::refused(c);
        }
        self.end_object(out);
        Step::More
    }

    /// Ends a call. If the model has written no arguments, they are `{}`.
    fn end_object(&mut self, out: &mut Out) {
        if self.object.is_named && !self.object.has_arguments {
            out.arguments("{}");
        }
        self.object = Object::default();
        self.at = At::After;
    }
}

impl Object {
    fn argument(&mut self, c: char, out: &mut Out) {
        self.arguments(c.encode_utf8(&mut [0; 4]), out);
    }

    fn arguments(&mut self, text: &str, out: &mut Out) {
        self.has_arguments = true;
        if self.is_named {
            out.arguments(text);
        } else {
            self.early.push_str(text);
        }
    }
}

fn no_null(word: &str) -> &str {
    if word == "null" { "{}" } else { word }
}

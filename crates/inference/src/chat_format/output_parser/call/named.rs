//! A tool call as a name, followed by its arguments as JSON.

use weir_engine::request::Tool;

use super::step::{Close, Closing, Step, find, is_begun};
use crate::chat_format::output_parser::out::Out;
use crate::chat_format::output_parser::value::{Place, Value};

/// Limit on the characters between name and arguments, such as an id or marks.
const BETWEEN_MAX: usize = 256;

#[derive(Debug)]
pub(in crate::chat_format::output_parser) struct NamedCall {
    prefix: &'static str,
    close: Close,
    at: At,
}

#[derive(Debug)]
enum At {
    /// This many bytes of the prefix have come.
    Prefix(usize),
    Name(String),
    Between(usize),
    Arguments(Value),
    After,
}

impl NamedCall {
    pub(super) fn new(prefix: &'static str, close: &'static str) -> Self {
        NamedCall {
            prefix,
            close: Close::new(close),
            at: At::Prefix(0),
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        matches!(self.at, At::Between(_) | At::Arguments(_) | At::After)
    }

    pub(super) fn step(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        let may_close = match &self.at {
            At::Prefix(_) | At::Name(_) => false,
            At::Arguments(value) => !value.is_in_string(),
            At::Between(_) | At::After => true,
        };
        if !may_close {
            return self.read(c, tools, out);
        }
        match self.close.step(c) {
            Closing::Held => Step::More,
            Closing::Closed => {
                self.finish(true, out);
                Step::Ended(String::new())
            }
            Closing::Released(text) => {
                for (at, c) in text.char_indices() {
                    let step = self.read(c, tools, out);
                    if step != Step::More {
                        return step.before(&text[at + c.len_utf8()..]);
                    }
                }
                Step::More
            }
        }
    }

    pub(super) fn finish(&mut self, ended: bool, out: &mut Out) {
        if ended && matches!(self.at, At::Between(_)) {
            out.arguments("{}");
        }
        self.at = At::After;
    }

    fn read(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        match &mut self.at {
            At::Prefix(0) if c.is_whitespace() => {}
            At::Prefix(matched) if self.prefix[*matched..].starts_with(c) => {
                *matched += c.len_utf8();
            }
            At::Prefix(matched) if *matched == self.prefix.len() => {
                self.at = At::Name(String::new());
                return self.read(c, tools, out);
            }
            At::Prefix(_) => return Step::refused(c),
            At::Name(name) if is_name(c) => {
                name.push(c);
                if !is_begun(tools, name) {
                    return Step::refused(c);
                }
            }
            At::Name(name) => {
                if find(tools, name).is_none() {
                    return Step::refused(c);
                }
                out.call(name);
                self.at = At::Between(0);
                return self.step(c, tools, out);
            }
            At::Between(_) if c == '{' => {
                out.arguments("{");
                self.at = At::Arguments(Value::new(c));
            }
            At::Between(BETWEEN_MAX) => {
                self.finish(true, out);
                return Step::ended(c);
            }
            At::Between(count) => *count += 1,
            At::Arguments(value) => {
                out.arguments(c.encode_utf8(&mut [0; 4]));
                if value.step(c) == Place::Last {
                    self.at = At::After;
                }
            }
            // DeepSeek V3 puts the arguments into a fenced code block.
            At::After if c.is_whitespace() || c == '`' => {}
            At::After => return Step::ended(c),
        }
        Step::More
    }
}

/// Whether a tool's name may have this character.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

//! Tool calls whose arguments stand between tags. They become JSON, with the types of the tool's schema.

use serde_json::Value as Json;
use weir_engine::request::Tool;

use super::named::is_name;
use super::step::{Step, find, is_begun};
use crate::chat_format::format::Tags;
use crate::chat_format::output_parser::marks::Matcher;
use crate::chat_format::output_parser::out::Out;

#[derive(Debug)]
pub(in crate::chat_format::output_parser) struct TaggedCalls {
    tags: Tags,
    matcher: Matcher,
    at: At,
    /// The tool's name, as far as it has come.
    name: String,
    arguments: u32,
}

#[derive(Debug)]
enum At {
    /// Before the name: only white space and the tag may come.
    Open,
    Name,
    BeforeKey,
    Key(String),
    BeforeValue(String),
    Value(Reading),
    After,
}

/// A value that is being read.
#[derive(Debug)]
struct Reading {
    /// Whether the value can only be text, which is passed on at once. Other values are kept until their type is known.
    text: bool,
    kept: String,
    /// Whether nothing of the value has come: a line break right after the tag isn't part of the value.
    fresh: bool,
    /// A line break that is part of the value only if more of it follows.
    line: bool,
}

impl TaggedCalls {
    pub(super) fn new(tags: Tags) -> Self {
        TaggedCalls {
            tags,
            matcher: Matcher::default(),
            at: if tags.name_open.is_empty() {
                At::Name
            } else {
                At::Open
            },
            name: String::new(),
            arguments: 0,
        }
    }

    pub(super) fn is_certain(&self) -> bool {
        !matches!(self.at, At::Open | At::Name)
    }

    pub(super) fn step(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        let tags = self.tags;
        let mut released = String::new();
        let mut release = |c| released.push(c);
        match &mut self.at {
            At::Open => {
                if self
                    .matcher
                    .step(c, &[tags.name_open], &mut release)
                    .is_some()
                {
                    self.at = At::Name;
                } else if !released.chars().all(char::is_whitespace) {
                    return Step::refused(c);
                }
            }
            At::Name => return self.read_name(c, tools, out),
            At::BeforeKey => {
                let marks = [tags.key_open, tags.close, tags.call_close];
                let marks = &marks[..if tags.call_close.is_empty() { 2 } else { 3 }];
                match self.matcher.step(c, marks, &mut release) {
                    Some(0) => self.at = At::Key(String::new()),
                    Some(1) => {
                        self.end_call(out);
                        return Step::Ended(String::new());
                    }
                    Some(_) => self.end_call(out),
                    None => {}
                }
            }
            At::Key(key) => {
                let found = self.matcher.step(c, &[tags.key_close], &mut release);
                key.push_str(&released);
                if found.is_some() {
                    let key = std::mem::take(key);
                    self.before_value(key, tools, out);
                }
            }
            At::BeforeValue(key) => {
                if self
                    .matcher
                    .step(c, &[tags.value_open], &mut release)
                    .is_some()
                {
                    let key = std::mem::take(key);
                    self.begin_value(&key, tools, out);
                }
            }
            At::Value(value) => {
                let found = self.matcher.step(c, &[tags.value_close], &mut release);
                released
                    .chars()
                    .for_each(|c| value.push(c, tags.lines, out));
                if found.is_some() {
                    value.end(out);
                    self.at = At::BeforeKey;
                }
            }
            At::After => return self.read_after(c),
        }
        Step::More
    }

    pub(super) fn finish(&mut self, ended: bool, out: &mut Out) {
        if let At::Value(value) = &mut self.at {
            let held = self.matcher.take();
            held.chars()
                .for_each(|c| value.push(c, self.tags.lines, out));
            if ended {
                value.end(out);
            }
        }
        if ended && self.is_certain() && !matches!(self.at, At::After) {
            self.end_call(out);
        }
    }

    fn read_name(&mut self, c: char, tools: &[Tool], out: &mut Out) -> Step {
        if is_name(c) {
            self.name.push(c);
            let is_begun = is_begun(tools, &self.name);
            return if is_begun {
                Step::More
            } else {
                Step::refused(c)
            };
        }
        if self.name.is_empty() && c.is_whitespace() {
            return Step::More;
        }
        if find(tools, &self.name).is_none() {
            return Step::refused(c);
        }
        out.call(&self.name);
        self.arguments = 0;
        self.at = At::BeforeKey;
        self.step(c, tools, out)
    }

    fn before_value(&mut self, key: String, tools: &[Tool], out: &mut Out) {
        if self.tags.value_open.is_empty() {
            self.begin_value(&key, tools, out);
        } else {
            self.at = At::BeforeValue(key);
        }
    }

    fn begin_value(&mut self, key: &str, tools: &[Tool], out: &mut Out) {
        let key = key.trim();
        out.arguments(if self.arguments == 0 { "{" } else { ", " });
        self.arguments += 1;
        out.arguments(&Json::from(key).to_string());
        out.arguments(": ");
        let text = find(tools, &self.name).is_some_and(|tool| is_text(tool, key));
        if text {
            out.arguments("\"");
        }
        self.at = At::Value(Reading {
            text,
            kept: String::new(),
            fresh: true,
            line: false,
        });
    }

    fn end_call(&mut self, out: &mut Out) {
        out.arguments(if self.arguments == 0 { "{}" } else { "}" });
        self.at = At::After;
    }

    /// After a call: another call may follow before the mark that closes all of them.
    fn read_after(&mut self, c: char) -> Step {
        let mut released = String::new();
        let marks = [self.tags.close, self.tags.name_open];
        match self.matcher.step(c, &marks, &mut |c| released.push(c)) {
            Some(0) => return Step::Ended(String::new()),
            Some(_) => {
                self.name.clear();
                self.at = At::Name;
            }
            None if !released.chars().all(char::is_whitespace) => {
                return Step::Ended(released + &self.matcher.take());
            }
            None => {}
        }
        Step::More
    }
}

impl Reading {
    fn push(&mut self, c: char, lines: bool, out: &mut Out) {
        let fresh = std::mem::replace(&mut self.fresh, false);
        if lines && c == '\n' {
            // The first and the last line break belong to the tags.
            if !fresh && std::mem::replace(&mut self.line, true) {
                self.text("\n", out);
            }
            return;
        }
        if std::mem::take(&mut self.line) {
            self.text("\n", out);
        }
        self.text(c.encode_utf8(&mut [0; 4]), out);
    }

    fn text(&mut self, text: &str, out: &mut Out) {
        if self.text {
            let json = Json::from(text).to_string();
            out.arguments(&json[1..json.len() - 1]);
        } else {
            self.kept.push_str(text);
        }
    }

    fn end(&mut self, out: &mut Out) {
        if self.text {
            out.arguments("\"");
            return;
        }
        let kept = self.kept.trim();
        match kept {
            "True" => out.arguments("true"),
            "False" => out.arguments("false"),
            "None" => out.arguments("null"),
            _ if serde_json::from_str::<serde::de::IgnoredAny>(kept).is_ok() => out.arguments(kept),
            _ => out.arguments(&Json::from(self.kept.as_str()).to_string()),
        }
    }
}

/// Whether the schema allows only strings for an argument: then `12` becomes `"12"`.
fn is_text(tool: &Tool, key: &str) -> bool {
    let schema = tool.parameters.as_ref();
    let Some(schema) = schema.and_then(|schema| schema.get("properties")?.get(key)) else {
        return false;
    };
    match (schema.get("type"), schema.get("enum")) {
        (Some(Json::String(name)), _) => name == "string",
        (Some(Json::Array(names)), _) => names.iter().all(|name| name == "string"),
        (None, Some(Json::Array(values))) => values.iter().all(Json::is_string),
        _ => false,
    }
}

//! `tojson` like Python's `json.dumps` with `ensure_ascii=False`: models were trained on its spacing, and Jinja's own
//! filter escapes characters for HTML.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::chat_format::python;

/// The filter `tojson`, with the options that templates use. Characters of `printable` are never escaped.
pub(super) fn tojson(
    value: &Value,
    options: Kwargs,
    printable: impl FnOnce() -> String,
) -> Result<String, Error> {
    let mut style = Style::new(&options)?;
    if style.ensure_ascii {
        style.printable = printable();
    }
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    if !python::is_shallow(value, python::DEPTH_MAX) {
        let message = "a value nests too deep for JSON";
        return Err(Error::new(ErrorKind::BadSerialization, message));
    }
    dump(value, style, sort_keys).map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "tojson failed").with_source(error)
    })
}

/// A value as JSON, with the spacing of `json.dumps`.
pub(super) fn text(value: &serde_json::Value) -> String {
    let style = Style {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        indent: None,
        ensure_ascii: false,
        printable: String::new(),
        depth: 0,
        filled: false,
    };
    let mut json = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut json, style))
        .expect("a JSON value can be written");
    String::from_utf8(json).expect("JSON is text")
}

fn dump(value: &Value, style: Style, sort_keys: bool) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(value)?;
    if sort_keys {
        value.sort_all_objects();
    }
    let mut json = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut json, style))?;
    Ok(String::from_utf8(json).expect("JSON is text"))
}

/// Separators and indentation of `json.dumps`. Empty arrays and objects have neither.
#[derive(Debug)]
struct Style {
    item_separator: String,
    key_separator: String,
    indent: Option<String>,
    ensure_ascii: bool,
    /// Characters outside of ASCII that aren't escaped even with `ensure_ascii`.
    printable: String,
    depth: usize,
    /// Whether the innermost array or object has an item already.
    filled: bool,
}

impl Style {
    fn new(options: &Kwargs) -> Result<Self, Error> {
        let indent = match options.get::<Option<Value>>("indent")? {
            Some(indent) => match (indent.as_str(), indent.as_usize()) {
                (Some(text), _) => Some(text.to_owned()),
                (None, Some(spaces)) => Some(" ".repeat(spaces.min(16))),
                (None, None) => None,
            },
            None => None,
        };
        let defaults = (if indent.is_some() { "," } else { ", " }, ": ");
        let (item_separator, key_separator) =
            match options.get::<Option<Vec<String>>>("separators")?.as_deref() {
                Some([item, key]) => (item.clone(), key.clone()),
                _ => (defaults.0.to_owned(), defaults.1.to_owned()),
            };
        let ensure_ascii = options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false);
        Ok(Style {
            item_separator,
            key_separator,
            indent,
            ensure_ascii,
            printable: String::new(),
            depth: 0,
            filled: false,
        })
    }

    fn begin(&mut self, out: &mut (impl ?Sized + Write), bracket: &str) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket.as_bytes())
    }

    fn end(&mut self, out: &mut (impl ?Sized + Write), bracket: &str) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.new_line(out)?;
        }
        self.filled = true;
        out.write_all(bracket.as_bytes())
    }

    fn separate(&mut self, out: &mut (impl ?Sized + Write), first: bool) -> io::Result<()> {
        self.filled = true;
        if !first {
            out.write_all(self.item_separator.as_bytes())?;
        }
        self.new_line(out)
    }

    fn new_line(&self, out: &mut (impl ?Sized + Write)) -> io::Result<()> {
        let Some(indent) = &self.indent else {
            return Ok(());
        };
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(indent.as_bytes()))
    }
}

impl Formatter for Style {
    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, number: f64) -> io::Result<()> {
        out.write_all(python::float_repr(number).as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key_separator.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for character in fragment.chars() {
            if matches!(character, ' '..='~') || self.printable.contains(character) {
                write!(out, "{character}")?;
            } else {
                character
                    .encode_utf16(&mut units)
                    .iter()
                    .try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }
}

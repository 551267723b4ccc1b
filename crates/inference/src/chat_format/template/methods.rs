//! Python's string methods and Jinja's filters, where those of `minijinja` differ.

use minijinja::value::{Kwargs, StringInput, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;

use super::environment::stand_ins;
use crate::chat_format::{python, python_json};

/// Limit on the spaces that `indent` puts before a line.
const INDENT_MAX: usize = 1000;

/// Adds the methods, filters and tests to an environment.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| {
        python::write_str(out, value, || stand_ins(state)).map_err(|_| too_deep())
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", string);
    environment.add_filter("trim", trim);
    environment.add_filter("indent", indent);
    // `None` isn't iterable in Python, although a loop over it would be empty here.
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    // In Jinja a sequence has a length and can be indexed.
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String
        )
    });
}

fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(text), "strip" | "lstrip" | "rstrip") => {
            let (characters,): (Option<&str>,) = from_args(args)?;
            Ok(strip(text, name, characters).into())
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn strip<'a>(text: &'a str, side: &str, characters: Option<&str>) -> &'a str {
    let is_stripped = |character| match characters {
        Some(characters) => characters.contains(character),
        None => python::is_space(character),
    };
    match side {
        "lstrip" => text.trim_start_matches(is_stripped),
        "rstrip" => text.trim_end_matches(is_stripped),
        _ => text.trim_matches(is_stripped),
    }
}

fn trim(state: &State<'_, '_>, value: &Value, characters: Option<&str>) -> Result<String, Error> {
    Ok(strip(&string(state, value)?, "strip", characters).to_owned())
}

fn string(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    python::write_str(&mut text, value, || stand_ins(state)).map_err(|_| too_deep())?;
    Ok(text)
}

fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<String, Error> {
    python_json::tojson(value, options, || stand_ins(state))
}

/// Jinja's `indent` keeps a line break at the end of the text.
fn indent(
    value: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    if width.is_some_and(|width| width > INDENT_MAX) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "an indent is too wide",
        ));
    }
    let ends_line = value.as_str().ends_with('\n');
    let indented = filters::indent(value, width, first, blank, options)?;
    Ok(if ends_line {
        format!("{indented}\n").into()
    } else {
        indented
    })
}

fn too_deep() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "a value nests too deep to be written",
    )
}

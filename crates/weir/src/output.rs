//! What commands print: data to stdout, as a table for people or as JSON for programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::cli::Json;

/// Prints one thing: `text` for people, `data` for programs.
pub(crate) fn one(output: Json, data: &impl Serialize, text: &str) -> io::Result<()> {
    if output.json { json(data) } else { line(text) }
}

/// Prints a list as an aligned table, or as a JSON array.
pub(crate) fn list<T: Serialize>(
    output: Json,
    head: &[&str],
    items: &[T],
    cells: impl Fn(&T) -> Vec<String>,
) -> io::Result<()> {
    if output.json {
        return json(&items);
    }
    let mut rows = vec![head.iter().map(|&name| name.to_owned()).collect()];
    rows.extend(items.iter().map(cells));
    table(&rows)
}

/// All of each row as JSON, or the named fields as a table.
pub(crate) fn rows(output: Json, head: &[&str], names: &[&str], rows: &[Value]) -> io::Result<()> {
    list(output, head, rows, |row| {
        names.iter().map(|name| cell(&row[*name])).collect()
    })
}

/// One object as JSON, or as a table of its fields.
pub(crate) fn fields(output: Json, object: &Value) -> io::Result<()> {
    if output.json {
        return json(object);
    }
    let fields = object.as_object().into_iter().flatten();
    let rows: Vec<_> = fields
        .map(|(name, value)| vec![name.clone(), cell(value)])
        .collect();
    table(&rows)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Adds to the line, at once.
pub(crate) fn piece(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// For people, beside the data.
pub(crate) fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "weir: {text}")
}

fn json(data: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(data)?)
}

fn table(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A number as programs should read it: exact, so as a text.
pub(crate) fn exact(amount: impl ToString) -> Value {
    Value::String(amount.to_string())
}

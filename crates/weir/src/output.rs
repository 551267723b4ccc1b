//! What commands print: data to stdout, as a table for people or as JSON for programs.

pub(crate) mod line_queue;
mod printable;
pub(crate) mod secret;

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::printable::printable;
use crate::cli::Json;

/// The output of a command can't be written.
#[derive(Debug, thiserror::Error)]
#[error("stdout can't be written: {0}")]
pub(crate) struct StdoutError(#[from] io::Error);

impl StdoutError {
    /// The program that read our output has had enough, as `head` has.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

pub(crate) type Result<T> = std::result::Result<T, StdoutError>;

/// Prints one thing: `text` for people, `data` for programs.
pub(crate) fn one(output: Json, data: &impl Serialize, text: &str) -> Result<()> {
    if output.json {
        json(data)
    } else {
        line(&printable(text))
    }
}

/// Ignores a closed stdout: for commands whose exit status says what they found, read or not.
pub(crate) fn unless_closed(printed: Result<()>) -> Result<()> {
    match printed {
        Err(error) if error.is_closed() => Ok(()),
        printed => printed,
    }
}

/// Prints a list as an aligned table, or as a JSON array.
pub(crate) fn list<T: Serialize>(
    output: Json,
    head: &[&str],
    items: &[T],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    if output.json {
        return json(&items);
    }
    let mut rows = vec![head.iter().map(|&name| name.to_owned()).collect()];
    rows.extend(items.iter().map(cells));
    table(&rows)
}

/// All of each row as JSON, or the named fields as a table.
pub(crate) fn rows(output: Json, head: &[&str], names: &[&str], rows: &[Value]) -> Result<()> {
    list(output, head, rows, |row| {
        names.iter().map(|name| cell(&row[*name])).collect()
    })
}

/// One object as JSON, or as a table of its fields.
pub(crate) fn fields(output: Json, object: &Value) -> Result<()> {
    if output.json {
        return json(object);
    }
    let fields = object.as_object().into_iter().flatten();
    let rows: Vec<_> = fields
        .map(|(name, value)| vec![name.clone(), cell(value)])
        .collect();
    table(&rows)
}

/// A value as a table shows it.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable::line(text).into_owned(),
        other => printable::json(&other.to_string()).into_owned(),
    }
}

pub(crate) fn line(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Adds to the line, at once, and as it is.
pub(crate) fn piece(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// For people, beside the data. A command does its work also where nobody can be told about it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "weir: {}", printable(text));
}

/// The longest that the end of the process waits for its last notes.
const LAST_NOTES_WAIT: Duration = Duration::from_secs(1);

/// Notes before the process ends, which doesn't wait for ever where stderr is a pipe that nothing reads.
pub(crate) fn last_notes(lines: Vec<String>) {
    let (done, wait) = mpsc::channel();
    let written = thread::Builder::new().spawn(move || {
        lines.iter().for_each(|line| note(line));
        // The other end has gone if the time is up.
        let _ = done.send(());
    });
    if written.is_ok() {
        let _ = wait.recv_timeout(LAST_NOTES_WAIT);
    }
}

fn json(data: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(data).map_err(io::Error::from)?;
    line(&printable::json(&text))
}

fn table(rows: &[Vec<String>]) -> Result<()> {
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

//! Output of commands: data on stdout, as tables for people or as JSON for programs.

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

/// A command's output couldn't be written. The message has its cause, so the error has no source.
#[derive(Debug, thiserror::Error)]
#[error("stdout can't be written: {0}")]
pub(crate) struct StdoutError(io::Error);

impl From<io::Error> for StdoutError {
    fn from(error: io::Error) -> Self {
        StdoutError(error)
    }
}

impl StdoutError {
    /// Whether the reader closed the pipe, as `head` does when it has read enough.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

pub(crate) type Result<T> = std::result::Result<T, StdoutError>;

/// Prints one result: `text` for people, `data` as JSON for programs.
pub(crate) fn one(output: Json, data: &impl Serialize, text: &str) -> Result<()> {
    if output.json {
        json(data)
    } else {
        line(&printable(text))
    }
}

/// Ignores a closed stdout: for commands whose exit status tells the result even if the output isn't read.
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

/// Prints rows: with all their fields as JSON, or with the named ones as a table.
pub(crate) fn rows(output: Json, head: &[&str], names: &[&str], rows: &[Value]) -> Result<()> {
    list(output, head, rows, |row| {
        names.iter().map(|name| cell(&row[*name])).collect()
    })
}

/// Prints an object as JSON, or its fields as a table.
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

/// A value as text for a table.
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

/// Prints without a line feed, unescaped, and flushes.
pub(crate) fn piece(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints a note for people on stderr. Failing to write it is ignored: the command still does its work.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "weir: {}", printable(text));
}

/// The longest wait for the last notes of a process.
const LAST_NOTES_WAIT: Duration = Duration::from_secs(1);

/// Prints notes before the process ends. Doesn't wait for ever if stderr is a pipe that nothing reads.
pub(crate) fn last_notes(lines: Vec<String>) {
    let (done, wait) = mpsc::channel();
    let written = thread::Builder::new().spawn(move || {
        lines.iter().for_each(|line| note(line));
        // The receiver is gone if the time is up.
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

/// An amount as JSON: a string, so that programs read it exactly.
pub(crate) fn exact(amount: impl ToString) -> Value {
    Value::String(amount.to_string())
}

//! Reads the text of a config file into settings, and names every problem with its line.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::{Origin, Problem};
use super::settings::{Setting, Settings, pattern};
use super::value::{checked, from_toml, wrong};
use super::{file, slips};

impl Settings {
    /// Reads a config file's text, and adds all of its problems.
    pub(crate) fn read(&mut self, file: &str, text: &str, problems: &mut Vec<Problem>) {
        let mut reader = FileReader {
            file,
            text,
            settings: self,
            problems,
        };
        match DeTable::parse(text) {
            Ok(table) => reader.table("", table.get_ref()),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let message = slips::explain(text, &span, error.message());
                reader.problem(&span, message);
            }
        }
    }
}

struct FileReader<'a> {
    file: &'a str,
    text: &'a str,
    settings: &'a mut Settings,
    problems: &'a mut Vec<Problem>,
}

impl FileReader<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin::Line {
            file: self.file.to_owned(),
            line: file::line(self.text.as_bytes(), span.start),
        }
    }

    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let origin = self.origin(span);
        self.problems.push(Problem {
            origin,
            message: message.into(),
        });
    }

    /// Reads a table. `at` is its concrete path, empty for the root.
    fn table(&mut self, at: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = if at.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{at}.{}", name.get_ref())
            };
            self.value(at, &path, name, value);
        }
    }

    fn value(
        &mut self,
        at: &str,
        path: &str,
        name: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let pattern = pattern(path);
        if let Some(key) = keys::find(&pattern) {
            let found = from_toml(value.get_ref()).map_err(|found| wrong(key, &found));
            match found.and_then(|value| checked(key, value)) {
                Ok(value) => {
                    let origin = self.origin(&name.span());
                    self.settings
                        .values
                        .insert(path.to_owned(), Setting { value, origin });
                }
                Err(message) => self.problem(&name.span(), message),
            }
        } else if under(&format!("{pattern}[].")) {
            self.entries(path, value);
        } else if under(&format!("{pattern}.")) {
            match value.get_ref().as_table() {
                Some(table) => self.table(path, table),
                None => self.problem(&name.span(), format!("{path} must be a table: [{path}]")),
            }
        } else {
            let allowed = siblings(at).join(", ");
            self.problem(
                &name.span(),
                format!("unknown key `{}`; allowed here: {allowed}", name.get_ref()),
            );
        }
    }

    /// Reads the entries of a list of tables such as `[[models]]`.
    fn entries(&mut self, list: &str, value: &Spanned<DeValue<'_>>) {
        let tables: Option<Vec<_>> = value.get_ref().as_array().map(|array| {
            array
                .iter()
                .filter_map(|entry| Some((entry.span(), entry.get_ref().as_table()?)))
                .collect()
        });
        let length = value.get_ref().as_array().map_or(0, |array| array.len());
        match tables {
            Some(tables) if tables.len() == length => {
                for (index, (span, table)) in tables.into_iter().enumerate() {
                    let path = format!("{list}[{index}]");
                    let origin = self.origin(&span);
                    self.settings.entries.insert(path.clone(), origin);
                    self.table(&path, table);
                }
            }
            _ => self.problem(
                &value.span(),
                format!(
                    "{list} must be a list of tables: [[{}]]",
                    pattern(list).replace("[]", "")
                ),
            ),
        }
    }
}

fn under(prefix: &str) -> bool {
    keys::keys().iter().any(|key| key.path.starts_with(prefix))
}

/// The names of keys and tables that may be in a table.
fn siblings(at: &str) -> Vec<&'static str> {
    let prefix = if at.is_empty() {
        String::new()
    } else {
        format!("{}.", pattern(at))
    };
    let mut names: Vec<_> = keys::keys()
        .iter()
        .filter_map(|key| key.path.strip_prefix(&prefix))
        .filter_map(|rest| rest.split(['.', '[']).next())
        .collect();
    names.dedup();
    names
}

//! Values as written, each with its origin: those of the file, overlaid by those of the environment.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keys::{self, Key};
use super::problem::{Origin, Problem};
use super::value::from_text;

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Settings by concrete path, such as `models[0].engines[0].path`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(super) values: BTreeMap<String, Setting>,
    /// The place where each entry of a list (`models[0]`) begins, for errors about keys that it lacks.
    pub(super) entries: BTreeMap<String, Origin>,
}

impl Settings {
    pub(crate) fn get(&self, path: &str) -> Option<&Setting> {
        self.values.get(path)
    }

    /// The value at a concrete path, or the default of its key.
    pub(crate) fn value(&self, path: &str) -> Option<Value> {
        let key = keys::find(&pattern(path)).expect("the path of a key");
        let written = self.get(path).map(|setting| setting.value.clone());
        written.or_else(|| key.default.clone())
    }

    /// Forgets values in whose place the command line has others.
    pub(crate) fn forget(&mut self, paths: &[&str]) {
        for path in paths {
            self.values.remove(*path);
        }
    }

    /// The number of entries of a list such as `models` or `models[0].engines`.
    pub(crate) fn count(&self, list: &str) -> usize {
        (0..)
            .take_while(|index| self.entries.contains_key(&format!("{list}[{index}]")))
            .count()
    }

    /// A problem at a key or an entry.
    pub(crate) fn problem(&self, path: &str, message: String) -> Problem {
        let value = self.values.get(path).map(|setting| &setting.origin);
        let origin = value.or_else(|| self.entries.get(path));
        Problem {
            origin: origin.cloned().unwrap_or(Origin::Default),
            message,
        }
    }

    /// A problem for each required key that an entry lacks.
    pub(crate) fn missing(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for entry in self.entries.keys() {
            let table = pattern(entry);
            for key in keys::keys() {
                let name = key.path.strip_prefix(&table);
                let name = name.and_then(|name| name.strip_prefix('.'));
                if let (Some(name), Some(needs)) = (name, &key.needs)
                    && !name.contains('.')
                    && !self.values.contains_key(&format!("{entry}.{name}"))
                {
                    let message = format!("{entry} has no {name}; it needs {needs}");
                    problems.push(self.problem(entry, message));
                }
            }
        }
        problems
    }

    /// Replaces values by environment variables. Returns the `WEIR_` names that aren't variables of Weir.
    pub(crate) fn overlay(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) -> Vec<String> {
        let mut unknown = Vec::new();
        for (name, text) in variables {
            let Some(words) = name.strip_prefix("WEIR_") else {
                continue;
            };
            if name == "WEIR_LOG" {
                self.variable("log.filter", "log.filter", &name, &text, problems);
            } else if keys::VARIABLES.iter().any(|(known, _)| *known == name) {
                continue;
            } else if let Some((key, path)) = key_of(words) {
                self.variable(&key.path, &path, &name, &text, problems);
            } else {
                unknown.push(name);
            }
        }
        unknown.sort();
        unknown
    }

    fn variable(
        &mut self,
        pattern: &str,
        path: &str,
        name: &str,
        text: &str,
        problems: &mut Vec<Problem>,
    ) {
        let key = keys::find(pattern).expect("the pattern of a key");
        let origin = Origin::Variable(name.to_owned());
        match from_text(key, text) {
            Ok(value) => {
                for (end, _) in path.match_indices(']') {
                    self.entries
                        .entry(path[..=end].to_owned())
                        .or_insert_with(|| origin.clone());
                }
                self.values
                    .insert(path.to_owned(), Setting { value, origin });
            }
            Err(message) => problems.push(Problem { origin, message }),
        }
    }

    /// Problems of entries that leave a gap: their numbers must begin at 0 and have none. Only environment variables can.
    pub(crate) fn gaps(&self) -> Vec<Problem> {
        let lonely = |path: &String| {
            let (list, index) = path
                .strip_suffix(']')
                .and_then(|path| path.rsplit_once('['))?;
            let index: usize = index.parse().ok()?;
            (index >= self.count(list)).then(|| (list.to_owned(), self.count(list)))
        };
        self.entries
            .iter()
            .filter_map(|(path, origin)| {
                let (list, count) = lonely(path)?;
                let message =
                    format!("{path} needs the entries before it, and `{list}` has {count}");
                Some(Problem {
                    origin: origin.clone(),
                    message,
                })
            })
            .collect()
    }
}

/// The key and the concrete path of a variable, such as `MODELS_0_INPUT_PRICE` (without `WEIR_`).
fn key_of(words: &str) -> Option<(&'static Key, String)> {
    keys::keys()
        .iter()
        .find_map(|key| Some((key, concrete(&key.path, words)?)))
}

fn concrete(pattern: &str, words: &str) -> Option<String> {
    let mut rest = words;
    let mut path = String::new();
    for (nth, part) in pattern.split('.').enumerate() {
        if nth > 0 {
            rest = rest.strip_prefix('_')?;
            path.push('.');
        }
        let name = part.strip_suffix("[]");
        rest = rest.strip_prefix(name.unwrap_or(part).to_uppercase().as_str())?;
        path.push_str(name.unwrap_or(part));
        if name.is_some() {
            rest = rest.strip_prefix('_')?;
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let index: usize = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            path.push_str(&format!("[{index}]"));
        }
    }
    rest.is_empty().then_some(path)
}

/// The key's path for a concrete path: `models[0].id` → `models[].id`.
pub(crate) fn pattern(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            inside = (inside || *c == '[') && *c != ']';
            !(inside && c.is_ascii_digit())
        })
        .collect()
}

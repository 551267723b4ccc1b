//! Turns settings into the types of the sections.

use serde_json::{Value, json};

use super::keys;
use super::problem::Problem;
use super::root::Config;
use super::settings::{Settings, pattern};
use super::value::{shown, wrong};

impl Settings {
    /// Turns the values into the types of the sections, which check what the schema can't say.
    pub(crate) fn decode(&self) -> Result<Config, Problem> {
        let mut tree = json!({});
        for entry in self.entries.keys() {
            place(&mut tree, entry);
            let table = pattern(entry);
            let tags = keys::keys().iter().filter(|key| key.tag);
            for tag in
                tags.filter(|tag| tag.path.rsplit_once('.').is_some_and(|(at, _)| at == table))
            {
                let name = &tag.path[table.len()..];
                *place(&mut tree, &format!("{entry}{name}")) = json!(tag.default);
            }
        }
        for (path, setting) in &self.values {
            *place(&mut tree, path) = setting.value.clone();
        }
        serde_path_to_error::deserialize(tree).map_err(|error| {
            let at = error.path().to_string();
            // An entry of a list of texts has the place of its list.
            let known = self.values.contains_key(&at) || self.entries.contains_key(&at);
            let list = at.rsplit_once('[').filter(|_| !known);
            let path = list.map_or(&at[..], |(list, _)| list);
            let message = error.inner().to_string();
            let found = self.values.get(path).map(|setting| &setting.value);
            self.problem(path, explain(path, &at, found, &message))
        })
    }
}

/// Explains why a value didn't fit its type. A type that has nothing special to say calls it an invalid value.
fn explain(path: &str, at: &str, found: Option<&Value>, message: &str) -> String {
    let Some(key) = keys::find(&pattern(path)) else {
        return format!("{path}: {message}");
    };
    if !message.starts_with("invalid value") {
        return format!("{}: {message}", key.path);
    }
    let index = at[path.len()..].trim_matches(['[', ']']).parse::<usize>();
    let found = found.map(|found| index.map_or(found, |index| &found[index]));
    wrong(key, &found.map_or_else(String::new, shown))
}

/// The value at a concrete path. Tables and lists on the way to it are made.
fn place<'a>(tree: &'a mut Value, path: &str) -> &'a mut Value {
    let parts = path.split(['.', '[']);
    parts.fold(tree, |tree, part| match part.strip_suffix(']') {
        Some(index) => {
            let index: usize = index.parse().expect("the number of an entry");
            if !tree.is_array() {
                *tree = json!([]);
            }
            let list = tree.as_array_mut().expect("a list");
            while list.len() <= index {
                list.push(json!({}));
            }
            &mut list[index]
        }
        None => &mut tree[part],
    })
}

//! Values as written, each with its origin: those of the file, overlaid by those of the environment.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use tracing_subscriber::EnvFilter;

use super::keys::{self, KEYS, Key, Kind};
use super::{address, file, slips};

/// A value of its key's kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Address(SocketAddr),
    Whole(u64),
    Flag(bool),
    Texts(Vec<String>),
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Line { file: String, line: usize },
    Variable(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line { file, line } => write!(f, "{file}:{line}"),
            Origin::Variable(name) => write!(f, "{name}"),
            Origin::Default => write!(f, "default"),
        }
    }
}

/// An error in a config, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// Settings by concrete path, such as `models[0].engines[0].path`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, Setting>,
    /// The place where each entry of a list (`models[0]`) begins, for errors about keys that it lacks.
    entries: BTreeMap<String, Origin>,
}

impl Settings {
    pub(crate) fn get(&self, path: &str) -> Option<&Setting> {
        self.values.get(path)
    }

    /// The value at a concrete path, or the default of its key.
    pub(crate) fn value(&self, path: &str) -> Option<Value> {
        let key = keys::find(&pattern(path)).expect("only keys of the table are read");
        let written = self.get(path).map(|setting| setting.value.clone());
        written.or_else(|| Some(from_text(key, key.default?).expect("a default fits its key")))
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

    pub(crate) fn entry(&self, path: &str) -> Origin {
        self.entries.get(path).cloned().unwrap_or(Origin::Default)
    }

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
                self.variable(key.path, &path, &name, &text, problems);
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
    KEYS.iter()
        .find_map(|key| Some((key, concrete(key.path, words)?)))
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

/// Parses an environment variable or a default.
pub(crate) fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    match key.kind {
        Kind::Whole { .. } => match text.parse() {
            Ok(number) => checked(key, Value::Whole(number)),
            Err(_) => Err(wrong(key, &format!("`{text}`"))),
        },
        Kind::Flag => match text {
            "true" | "1" => Ok(Value::Flag(true)),
            "false" | "0" => Ok(Value::Flag(false)),
            _ => Err(wrong(key, &format!("`{text}`"))),
        },
        Kind::Origins | Kind::Words { .. } | Kind::Networks => {
            if text.trim_start().starts_with('[') {
                let list = DeValue::parse(text.trim());
                let list = list.map_err(|_| wrong(key, &format!("`{text}`")))?;
                return from_toml(key, list.get_ref());
            }
            let words = text
                .split(',')
                .map(|word| word.trim().to_owned())
                .filter(|word| !word.is_empty());
            checked(key, Value::Texts(words.collect()))
        }
        Kind::Text
        | Kind::Path
        | Kind::Address
        | Kind::Choice { .. }
        | Kind::Place { .. }
        | Kind::Hidden { .. }
        | Kind::Filter => checked(key, Value::Text(text.to_owned())),
    }
}

/// The value if it fits the key; otherwise an error text.
fn checked(key: &Key, value: Value) -> Result<Value, String> {
    match (key.kind, value) {
        (Kind::Text | Kind::Path | Kind::Hidden { .. }, Value::Text(text)) if !text.is_empty() => {
            Ok(Value::Text(text))
        }
        (Kind::Hidden { .. }, _) => Err(wrong(key, "something else")),
        (Kind::Words { among }, Value::Texts(words)) if !words.is_empty() => {
            match words.iter().find(|word| !among.contains(&word.as_str())) {
                Some(other) => Err(wrong(key, &format!("`{other}`"))),
                None => Ok(Value::Texts(words)),
            }
        }
        (Kind::Address, Value::Text(text)) => address::listen(&text)
            .map(Value::Address)
            .ok_or_else(|| wrong(key, &format!("`{text}`"))),
        (Kind::Whole { min, max }, Value::Whole(number)) if (min..=max).contains(&number) => {
            Ok(Value::Whole(number))
        }
        (Kind::Flag, value @ Value::Flag(_)) => Ok(value),
        (Kind::Choice { now, .. }, Value::Text(text)) if now.contains(&text.as_str()) => {
            Ok(Value::Text(text))
        }
        (Kind::Choice { later, .. }, Value::Text(text))
            if later.iter().any(|start| text.starts_with(start)) =>
        {
            // The error repeats only the scheme: the rest of the address may hold a password.
            let start = text.split_inclusive("//").next().unwrap_or(&text);
            Err(format!(
                "{} {start}… is not supported in this version; it must be {}",
                key.path,
                expected(key)
            ))
        }
        (Kind::Place { .. }, Value::Text(text)) if address::needs_encoding(&text) => Err(format!(
            "{}: in a user name or password, write @ as %40, # as %23, / as %2F and ? as %3F",
            key.path
        )),
        (Kind::Place { word, schemes }, Value::Text(text)) => {
            if text == word || schemes.iter().any(|scheme| text.starts_with(scheme)) {
                return Ok(Value::Text(text));
            }
            Err(wrong(key, "something else"))
        }
        (Kind::Filter, Value::Text(text)) => match EnvFilter::try_new(&text) {
            Ok(_) => Ok(Value::Text(text)),
            Err(error) => Err(format!("{} `{text}`: {error}", key.path)),
        },
        (Kind::Origins, Value::Texts(origins)) if !origins.is_empty() => {
            match origins.iter().find(|origin| !is_origin(origin)) {
                Some(other) => Err(wrong(key, &format!("`{other}`"))),
                None => Ok(Value::Texts(origins)),
            }
        }
        (Kind::Networks, Value::Texts(networks)) if !networks.is_empty() => {
            match networks.iter().find(|text| network(text).is_none()) {
                Some(other) => Err(wrong(key, &format!("`{other}`"))),
                None => Ok(Value::Texts(networks)),
            }
        }
        (_, value) => Err(wrong(key, &shown(&value))),
    }
}

/// A network such as `10.0.0.0/8`, or an address, which becomes a network of its own.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(|| address(text))
}

/// Whether the text is `*`, or an origin such as `https://example.com:8443`: scheme, host, perhaps a port, nothing more.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    text == "*"
        || host
            .is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*', '@', '?', '#']))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("`{text}`"),
        Value::Address(address) => format!("`{address}`"),
        Value::Whole(number) => format!("{number}"),
        Value::Flag(flag) => format!("{flag}"),
        Value::Texts(texts) => format!("{texts:?}"),
    }
}

fn wrong(key: &Key, got: &str) -> String {
    format!("{} must be {}, not {got}", key.path, expected(key))
}

/// A description of the key's valid values, for errors and for the reference.
pub(crate) fn expected(key: &Key) -> Cow<'static, str> {
    match key.kind {
        Kind::Text => "a text that is not empty".into(),
        Kind::Path => "a path".into(),
        Kind::Address => "an address with a port, as 127.0.0.1:8080".into(),
        Kind::Whole { min, max } => format!("a whole number from {min} to {max}").into(),
        Kind::Flag => "true or false".into(),
        Kind::Choice { now, .. } => quoted(now).join(" or ").into(),
        Kind::Place { word, schemes } => {
            let schemes = schemes.iter().map(|scheme| format!("{scheme}…"));
            let all: Vec<_> = [format!("\"{word}\"")].into_iter().chain(schemes).collect();
            all.join(" or ").into()
        }
        Kind::Hidden { what } => what.into(),
        Kind::Words { among } => format!("a list of some of {}", quoted(among).join(", ")).into(),
        Kind::Filter => "directives as info,weir_inference=debug".into(),
        Kind::Origins => "a list of origins, as [\"https://example.com\"]".into(),
        Kind::Networks => "a list of addresses and networks, as [\"10.0.0.0/8\"]".into(),
    }
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("\"{word}\"")).collect()
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
            match from_toml(key, value.get_ref()) {
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

fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    if matches!(key.kind, Kind::Hidden { .. }) && value.as_str().is_none() {
        return Err(wrong(key, "something else"));
    }
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let parsed = u64::from_str_radix(digits.trim_start_matches('+'), number.radix());
            Value::Whole(parsed.map_err(|_| wrong(key, digits))?)
        }
        DeValue::Array(values) => {
            let texts = values
                .iter()
                .map(|value| value.get_ref().as_str().map(str::to_owned));
            Value::Texts(
                texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| wrong(key, "a list of other things"))?,
            )
        }
        DeValue::Float(number) => return Err(wrong(key, number.as_str())),
        DeValue::Datetime(_) | DeValue::Table(_) => {
            return Err(wrong(key, &format!("a {}", value.type_str())));
        }
    };
    checked(key, value)
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

fn under(prefix: &str) -> bool {
    KEYS.iter().any(|key| key.path.starts_with(prefix))
}

/// The names of keys and tables that may be in a table.
fn siblings(at: &str) -> Vec<&'static str> {
    let prefix = if at.is_empty() {
        String::new()
    } else {
        format!("{}.", pattern(at))
    };
    let mut names: Vec<_> = KEYS
        .iter()
        .filter_map(|key| key.path.strip_prefix(&prefix))
        .filter_map(|rest| rest.split(['.', '[']).next())
        .collect();
    names.dedup();
    names
}

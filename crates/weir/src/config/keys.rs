//! All config keys, read from the schema of the section types. The parser, the environment variables and `docs/config.md` use
//! them.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::root::Config;

/// The valid values of a key, as far as the schema says. A value is checked when it is read, so that an error can name its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole {
        min: u64,
        max: u64,
    },
    Flag,
    Text,
    /// A text that is one of these words.
    Choice(Vec<String>),
    /// A list of texts; of some of these words, if there are any.
    List(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Key {
    /// The path of the key, with `[]` for the number of an entry.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// A description of the valid values, for errors and for the reference.
    pub(crate) expected: String,
    pub(crate) default: Option<Value>,
    pub(crate) doc: String,
    /// Whether a reload changes it while the server runs.
    pub(crate) live: bool,
    /// For a required key, what its table needs it for.
    pub(crate) needs: Option<String>,
    /// Whether the value is, or holds, a secret: errors never repeat it.
    pub(crate) secret: bool,
    /// Whether the key tells which type of section its table is.
    pub(crate) tag: bool,
}

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    let mut keys = Vec::new();
    read_table(schema.as_value(), "", false, &mut keys);
    keys
});

pub(crate) fn keys() -> &'static [Key] {
    &KEYS
}

pub(crate) fn find(pattern: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.path == pattern)
}

fn read_table(table: &Value, path: &str, live: bool, keys: &mut Vec<Key>) {
    for (name, schema) in members(table, "properties") {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let live = live || schema["x-live"] == true;
        let items = &schema["items"];
        if members(schema, "properties").next().is_some() {
            read_table(schema, &path, live, keys);
        } else if items["oneOf"].is_array() && items["oneOf"][0]["properties"].is_object() {
            read_tagged(items, &format!("{path}[]"), live, keys);
        } else if items["properties"].is_object() {
            let live = live || items["x-live"] == true;
            read_table(items, &format!("{path}[]"), live, keys);
        } else {
            keys.push(key(schema, path, live));
        }
    }
}

/// Reads a table that may be of several types. The key `kind` tells which; without it, the table is of the first.
fn read_tagged(schema: &Value, path: &str, live: bool, keys: &mut Vec<Key>) {
    const TAG: &str = "kind";
    let types = schema["oneOf"].as_array().into_iter().flatten();
    let words: Vec<_> = types
        .clone()
        .filter_map(|table| table["properties"][TAG]["const"].as_str())
        .collect();
    keys.push(Key {
        default: words.first().map(|&word| word.into()),
        tag: true,
        ..key(
            &serde_json::json!({"enum": words, "description": schema["description"]}),
            format!("{path}.{TAG}"),
            live,
        )
    });
    let tag = format!("{path}.{TAG}");
    for table in types {
        let mut of_type = Vec::new();
        read_table(table, path, live, &mut of_type);
        keys.extend(of_type.into_iter().filter(|key| key.path != tag));
    }
}

fn key(schema: &Value, path: String, live: bool) -> Key {
    let kind = kind(schema);
    let text = |name: &str| get(schema, name).as_str().map(str::to_owned);
    let default = get(schema, "default");
    let empty = default.is_null() || default.as_array().is_some_and(Vec::is_empty);
    let needs = text("x-needs");
    Key {
        expected: text("x-expected").unwrap_or_else(|| describe(&kind)),
        default: (!empty && needs.is_none()).then(|| default.clone()),
        doc: text("description").unwrap_or_default().replace('\n', " "),
        secret: get(schema, "x-secret") == true,
        tag: false,
        path,
        kind,
        live,
        needs,
    }
}

fn kind(schema: &Value) -> Kind {
    let choices = words(schema);
    if !choices.is_empty() {
        return Kind::Choice(choices);
    }
    let types = get(schema, "type");
    let of = |name: &str| types == name || members_of(types).any(|of| of == name);
    if of("integer") {
        let bound = |name: &str| get(schema, name).as_u64();
        return Kind::Whole {
            min: bound("minimum").unwrap_or(0),
            max: bound("maximum").unwrap_or(u64::MAX),
        };
    }
    if of("boolean") {
        return Kind::Flag;
    }
    match of("array") {
        true => Kind::List(words(&schema["items"])),
        false => Kind::Text,
    }
}

/// The words of a choice.
fn words(schema: &Value) -> Vec<String> {
    let words = members_of(get(schema, "enum")).filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

fn describe(kind: &Kind) -> String {
    let quoted = |words: &[String]| -> Vec<String> {
        words.iter().map(|word| format!("\"{word}\"")).collect()
    };
    match kind {
        Kind::Whole { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Flag => "true or false".to_owned(),
        Kind::Text => "a text that is not empty".to_owned(),
        Kind::Choice(words) => quoted(words).join(" or "),
        Kind::List(words) => format!("a list of some of {}", quoted(words).join(", ")),
    }
}

/// A keyword of the schema; of an optional value, whose schema may be `anyOf` it and null.
fn get<'a>(schema: &'a Value, name: &str) -> &'a Value {
    schema.get(name).unwrap_or(&schema["anyOf"][0][name])
}

fn members<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema[name].as_object().into_iter().flatten()
}

fn members_of(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

impl Key {
    /// The name of the key's environment variable; `<i>` and `<j>` stand for the numbers of entries, from 0.
    pub(crate) fn variable(&self) -> String {
        let mut index = ["<i>", "<j>"].into_iter();
        let words = self
            .path
            .split('.')
            .map(|word| match word.strip_suffix("[]") {
                Some(name) => format!(
                    "{}_{}",
                    name.to_uppercase(),
                    index.next().expect("at most two levels of entries")
                ),
                None => word.to_uppercase(),
            });
        format!("WEIR_{}", words.collect::<Vec<_>>().join("_"))
    }
}

/// Environment variables of Weir that aren't config keys.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("WEIR_CONFIG", "the config file, as `--config`"),
    ("WEIR_LOG", "what is logged, as `log.filter`"),
    ("WEIR_API_KEY", "the key of `weir chat`"),
    (
        "WEIR_BASE_URL",
        "the server of `weir chat`, as `--base-url`",
    ),
    (
        "WEIR_TEST_MODELS",
        "the directory of model files, for tests",
    ),
];

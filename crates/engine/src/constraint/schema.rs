//! A caller's JSON Schema, checked and cleaned: what is enforced stays, what only describes goes, and all
//! else is refused by name. llguidance would ignore keywords that it doesn't know or that another draft
//! has, and take orders for itself from `x-guidance`.

use serde_json::{Map, Value, json};

/// Bytes of a schema, written compactly.
pub const SCHEMA_BYTES_MAX: usize = 128 * 1024;
/// Nesting of schemas within schemas.
pub const SCHEMA_DEPTH_MAX: usize = 48;
/// `minLength` and `maxLength`.
pub const LENGTH_MAX: u64 = 20_000;
/// `minItems`, `maxItems`, `minProperties` and `maxProperties`.
pub const SCHEMA_ITEMS_MAX: u64 = 5_000;

/// Properties that one object names.
pub const PROPERTIES_MAX: usize = 256;
/// Least common multiple of all `multipleOf`, counted in the smallest decimal place of any: as many states
/// does a number have.
pub const MULTIPLES_MAX: u64 = 10_000;
/// Patterns and formats in a schema with `allOf`, which may ask for all of them at once.
pub const PATTERNS_JOINED_MAX: usize = 8;

/// Between the parts of a document: nothing, a blank, or a new line and its indentation. Without a bound
/// a model may write blanks until its tokens are used up.
const WHITESPACE: &str = r" |\n {0,16}";
/// Escapes in strings, after the backslash. Without `u` there is one way to write a name, so that a free
/// name can't be a declared one in disguise.
const ESCAPES: &str = "nrbtf\"\\";

/// What a keyword is.
enum Keyword {
    /// Its value is a schema.
    Schema,
    /// An array of schemas, or a single one.
    Schemas,
    /// An object whose values are schemas.
    Named,
    /// A value that is enforced as it is.
    Value,
    /// A number of things.
    Count(u64),
    /// It describes, and changes nothing.
    Note,
}

impl Keyword {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "additionalProperties" | "additionalItems" => Keyword::Schema,
            "items" | "prefixItems" | "allOf" | "anyOf" | "oneOf" => Keyword::Schemas,
            "properties" | "patternProperties" | "$defs" | "definitions" => Keyword::Named,
            "$ref" | "type" | "const" | "enum" | "required" | "pattern" | "format" | "minimum"
            | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => Keyword::Value,
            "minLength" | "maxLength" => Keyword::Count(LENGTH_MAX),
            "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                Keyword::Count(SCHEMA_ITEMS_MAX)
            }
            "$schema" | "$id" | "$comment" | "title" | "description" | "default" | "examples"
            | "deprecated" | "readOnly" | "writeOnly" | "contentMediaType" | "contentEncoding"
            | "discriminator" => Keyword::Note,
            _ if name.starts_with("x-") && name != "x-guidance" => Keyword::Note,
            _ => return None,
        })
    }
}

/// The schema as it is given to llguidance, or why it isn't.
pub(super) fn strict(schema: &Value) -> Result<Value, String> {
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(format!(
            "the schema has {bytes} bytes, more than the {SCHEMA_BYTES_MAX} that are allowed"
        ));
    }
    let mut root = match clean(schema, 0)? {
        Value::Object(root) => root,
        Value::Bool(true) => Map::new(),
        _ => return Err("the schema allows nothing".to_owned()),
    };
    for schema in all(&root) {
        if let Some(reference) = schema.get("$ref") {
            follow(&root, reference)?;
        }
    }
    patterns(&root)?;
    multiples(&root)?;
    root.insert(
        "x-guidance".to_owned(),
        json!({ "whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES }),
    );
    Ok(Value::Object(root))
}

fn clean(schema: &Value, depth: usize) -> Result<Value, String> {
    if depth > SCHEMA_DEPTH_MAX {
        return Err(format!(
            "the schema is nested deeper than the {SCHEMA_DEPTH_MAX} levels that are allowed"
        ));
    }
    let schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(_) => return Ok(schema.clone()),
        other => {
            return Err(format!(
                "a schema is an object or a boolean, not {}",
                kind(other)
            ));
        }
    };
    let mut cleaned = Map::new();
    for (name, value) in schema {
        let keyword = Keyword::of(name)
            .ok_or_else(|| format!("the schema keyword {name:?} is not supported"))?;
        let value = match keyword {
            Keyword::Note => continue,
            Keyword::Value => value.clone(),
            Keyword::Count(most) => count(name, value, most)?,
            Keyword::Schema => clean(value, depth + 1)?,
            Keyword::Schemas => match value {
                Value::Array(schemas) => schemas
                    .iter()
                    .map(|schema| clean(schema, depth + 1))
                    .collect::<Result<_, _>>()?,
                schema => clean(schema, depth + 1)?,
            },
            Keyword::Named => named(name, value, depth)?,
        };
        cleaned.insert(name.clone(), value);
    }
    repeated_names(&cleaned)?;
    Ok(Value::Object(cleaned))
}

fn named(name: &str, value: &Value, depth: usize) -> Result<Value, String> {
    let Value::Object(schemas) = value else {
        return Err(format!("{name} is an object, not {}", kind(value)));
    };
    if name == "properties" && schemas.len() > PROPERTIES_MAX {
        let got = schemas.len();
        return Err(format!(
            "an object may name at most {PROPERTIES_MAX} properties, got {got}"
        ));
    }
    let schemas = schemas
        .iter()
        .map(|(name, schema)| Ok((name.clone(), clean(schema, depth + 1)?)))
        .collect::<Result<Map<_, _>, String>>()?;
    Ok(Value::Object(schemas))
}

fn count(name: &str, value: &Value, most: u64) -> Result<Value, String> {
    match value.as_u64() {
        Some(count) if count <= most => Ok(value.clone()),
        Some(count) => Err(format!("{name} may be at most {most}, got {count}")),
        None => Err(format!("{name} is a whole number that isn't negative")),
    }
}

/// A grammar can't tell whether a free name was there before, and the same name twice counts once.
fn repeated_names(schema: &Map<String, Value>) -> Result<(), String> {
    let least = schema.get("minProperties").and_then(Value::as_u64);
    let required = schema.get("required").and_then(Value::as_array);
    let required = required.map_or(0, |names| names.len() as u64);
    match least {
        Some(least) if least > required + 1 => Err(format!(
            "minProperties is supported up to one more than the required properties, got {least}"
        )),
        _ => Ok(()),
    }
}

/// The schema and all within it.
fn all(root: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&schema) = found.get(next) {
        next += 1;
        for (name, value) in schema {
            match (Keyword::of(name), value) {
                (Some(Keyword::Schemas), Value::Array(schemas)) => {
                    found.extend(schemas.iter().filter_map(Value::as_object));
                }
                (Some(Keyword::Schema | Keyword::Schemas), schema) => {
                    found.extend(schema.as_object());
                }
                (Some(Keyword::Named), Value::Object(schemas)) => {
                    found.extend(schemas.values().filter_map(Value::as_object));
                }
                _ => {}
            }
        }
    }
    found
}

/// An expression that is the intersection of many takes time without bound.
fn patterns(root: &Map<String, Value>) -> Result<(), String> {
    let schemas = all(root);
    let count = |name: &str| {
        let with = schemas.iter().filter(|schema| schema.contains_key(name));
        with.count()
    };
    let joined = schemas.iter().any(|schema| {
        schema.contains_key("allOf") || schema.contains_key("$ref") && schema.len() > 1
    });
    let patterns = count("pattern") + count("format");
    if joined && patterns > PATTERNS_JOINED_MAX {
        return Err(format!(
            "a schema with allOf, or with keywords beside $ref, may have at most {PATTERNS_JOINED_MAX} patterns and formats, got {patterns}"
        ));
    }
    Ok(())
}

fn multiples(root: &Map<String, Value>) -> Result<(), String> {
    let too_many = || "multipleOf has too many digits to be enforced".to_owned();
    let mut numbers = Vec::new();
    for schema in all(root) {
        match schema.get("multipleOf") {
            Some(Value::Number(number)) => numbers.push(decimal(number).ok_or_else(too_many)?),
            Some(other) => return Err(format!("multipleOf is a number, not {}", kind(other))),
            None => {}
        }
    }
    let places = numbers.iter().map(|&(_, places)| places).max();
    let mut multiple = 1;
    for (digits, less) in numbers {
        let scale = 10_u64.checked_pow(places.unwrap_or(0) - less);
        multiple = scale
            .and_then(|scale| digits.checked_mul(scale))
            .and_then(|digits| least_common_multiple(multiple, digits))
            .filter(|&multiple| multiple <= MULTIPLES_MAX)
            .ok_or_else(too_many)?;
    }
    Ok(())
}

/// The digits of a positive number, and how many of them are behind the point.
fn decimal(number: &serde_json::Number) -> Option<(u64, u32)> {
    let text = number.as_f64()?.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{part}").parse().ok()?;
    Some((digits, u32::try_from(part.len()).ok()?)).filter(|&(digits, _)| digits > 0)
}

fn least_common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).checked_mul(b)
}

/// Goes on while the target is itself a reference; more often than there can be targets is a loop.
fn follow(root: &Map<String, Value>, reference: &Value) -> Result<(), String> {
    let mut reference = reference;
    for _ in 0..SCHEMA_DEPTH_MAX {
        let text = reference.as_str().ok_or("$ref is a string")?;
        let Some(path) = text.strip_prefix('#') else {
            return Err(format!("$ref may only point into the schema, got {text:?}"));
        };
        let mut target: Option<&Value> = None;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let within = match target {
                None => root.get(name),
                Some(Value::Array(items)) => name.parse::<usize>().ok().and_then(|i| items.get(i)),
                Some(value) => value.get(name),
            };
            target = Some(within.ok_or_else(|| format!("$ref {text:?} leads nowhere"))?);
        }
        let next = match target {
            None => root.get("$ref"),
            Some(target) => target.get("$ref"),
        };
        match next {
            None => return Ok(()),
            Some(next) => reference = next,
        }
    }
    Err("$ref leads from reference to reference, on and on".to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

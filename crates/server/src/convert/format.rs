//! The format of the answer: `response_format`, and vLLM's fields for the same and more.

use weir_api::format::{Formats, GivenSchema, JsonSchema, StructuredOutputs};
use weir_api::{List, ResponseFormat};
use weir_engine::Feature;
use weir_engine::request::{Format, Invalid, Schema};

use super::{Needs, is_name};

/// The format of the answer. At most one field may set it.
pub(super) fn format(given: Formats, needs: &mut Needs) -> Result<Format, Invalid> {
    let mut formats = Vec::new();
    if let Some(format) = given.response_format {
        formats.push(("response_format", response_format(format)?));
    }
    if let Some(outputs) = given.structured_outputs {
        formats.extend(structured_outputs(outputs)?.map(|format| ("structured_outputs", format)));
    }
    let guided = [
        given.guided_json.map(|schema| {
            Ok((
                "guided_json",
                Format::JsonSchema(given_schema(schema, "guided_json")),
            ))
        }),
        given
            .guided_regex
            .map(|regex| Ok(("guided_regex", Format::Regex(regex.into(), "guided_regex")))),
        given
            .guided_choice
            .map(|List(texts)| Ok(("guided_choice", choice(texts, "guided_choice")?))),
        given.guided_grammar.map(|text| {
            Ok((
                "guided_grammar",
                Format::Grammar(text.into(), "guided_grammar"),
            ))
        }),
    ];
    formats.extend(
        guided
            .into_iter()
            .flatten()
            .collect::<Result<Vec<_>, Invalid>>()?,
    );
    formats.retain(|(_, format)| *format != Format::Text);
    if let [(first, _), (second, _), ..] = &*formats {
        let message = format!(
            "{second} and {first} both say what the answer must look like; give one of them"
        );
        return Err(Invalid::new(*second, message));
    }
    let Some((param, format)) = formats.pop() else {
        return Ok(Format::Text);
    };
    needs.feature(param, Feature::StructuredOutputs);
    Ok(format)
}

/// A schema is enforced with and without `strict`. With it, a schema that can't be enforced completely is refused.
fn response_format(format: ResponseFormat) -> Result<Format, Invalid> {
    let ResponseFormat {
        kind,
        json_schema,
        value,
        schema,
    } = format;
    match kind.as_deref() {
        Some("text") => Ok(Format::Text),
        // huggingface_hub sends `value` to every server that isn't one of its providers; llama-server's field is
        // `schema`.
        Some("json_object") => Ok(match (value, schema) {
            (Some(schema), _) => {
                Format::JsonSchema(Schema::new(schema.exact(), "response_format.value"))
            }
            (None, Some(schema)) => {
                Format::JsonSchema(Schema::new(schema.exact(), "response_format.schema"))
            }
            (None, None) => Format::JsonObject,
        }),
        Some("json_schema") => match (json_schema, schema) {
            (None, Some(schema)) => Ok(Format::JsonSchema(Schema::new(
                schema.exact(),
                "response_format.schema",
            ))),
            (described, _) => named_schema(described.unwrap_or_default()),
        },
        _ => Err(Invalid::new(
            "response_format.type",
            "response_format.type must be one of text, json_object, json_schema; expressions, choices and grammars go into \
             structured_outputs",
        )),
    }
}

fn named_schema(described: JsonSchema) -> Result<Format, Invalid> {
    const NAME: &str = "response_format.json_schema.name";
    if !described.name.is_some_and(|name| is_name(&name)) {
        return Err(Invalid::new(
            NAME,
            format!("{NAME} is required: 1 to 64 letters, digits, _ and -"),
        ));
    }
    const SCHEMA: &str = "response_format.json_schema.schema";
    match described.schema {
        Some(schema) => {
            let is_strict = described.strict.unwrap_or(false);
            Ok(Format::JsonSchema(
                Schema::new(schema.exact(), SCHEMA).strict(is_strict),
            ))
        }
        None => Err(Invalid::new(SCHEMA, format!("{SCHEMA} is required"))),
    }
}

fn structured_outputs(outputs: StructuredOutputs) -> Result<Option<Format>, Invalid> {
    let refused = |field: &str| {
        let param = format!("structured_outputs.{field}");
        let message = format!("{param} is not supported");
        Err(Invalid::new(param, message))
    };
    let is_set = |flag: Option<bool>| flag == Some(true);
    if outputs
        .structural_tag
        .is_some_and(|field| field.says_something)
    {
        return refused("structural_tag");
    }
    if outputs
        .whitespace_pattern
        .is_some_and(|field| field.says_something)
    {
        return refused("whitespace_pattern");
    }
    if is_set(outputs.disable_any_whitespace) {
        return refused("disable_any_whitespace");
    }
    if is_set(outputs.disable_additional_properties) {
        return refused("disable_additional_properties");
    }
    let formats = [
        outputs.json.map(|schema| {
            Ok(Format::JsonSchema(given_schema(
                schema,
                "structured_outputs.json",
            )))
        }),
        outputs
            .regex
            .map(|regex| Ok(Format::Regex(regex.into(), "structured_outputs.regex"))),
        outputs
            .choice
            .map(|List(texts)| choice(texts, "structured_outputs.choice")),
        outputs
            .grammar
            .map(|text| Ok(Format::Grammar(text.into(), "structured_outputs.grammar"))),
        is_set(outputs.json_object).then_some(Ok(Format::JsonObject)),
    ];
    let mut formats = formats.into_iter().flatten();
    match (formats.next(), formats.next()) {
        (None, _) => Ok(None),
        (Some(format), None) => format.map(Some),
        (Some(_), Some(_)) => Err(Invalid::new(
            "structured_outputs",
            "structured_outputs takes one of json, regex, choice, grammar and json_object",
        )),
    }
}

fn given_schema(schema: GivenSchema, param: &'static str) -> Schema {
    let text = match schema {
        GivenSchema::Object(schema) => schema.exact(),
        GivenSchema::Text(text) => text,
    };
    Schema::new(text, param)
}

fn choice(texts: Vec<String>, param: &'static str) -> Result<Format, Invalid> {
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Invalid::new(
            param,
            format!("{param} needs texts, none of them empty"),
        ));
    }
    Ok(Format::Choice(texts.into()))
}

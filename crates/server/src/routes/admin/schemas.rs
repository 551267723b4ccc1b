//! JSON Schemas of the administrative API's types, for the OpenAPI document.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Where the document has the schemas that have names.
const DEFINITIONS: &str = "/components/schemas";

/// A route's parameters besides its path, its body, and its answer.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) parameters: Vec<Value>,
    pub(crate) body: Option<Value>,
    /// The answer by media type.
    pub(crate) answer: Value,
}

/// Generates JSON Schemas of types. Schemas of answers are named and shared; those of inputs are inlined, since a
/// type's schema as an input may differ from its schema in answers.
pub(crate) struct Schemas {
    answers: SchemaGenerator,
    inputs: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.meta_schema = None;
            settings.definitions_path = DEFINITIONS.into();
        });
        let inline = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
        Schemas {
            answers: settings.clone().for_serialize().into_generator(),
            inputs: settings.for_deserialize().with(inline).into_generator(),
        }
    }

    /// The schemas that have names, which the others refer to.
    pub(super) fn definitions(&mut self) -> Map<String, Value> {
        self.answers.take_definitions(true)
    }

    pub(crate) fn answer<A: JsonSchema>(&mut self) -> Schema {
        self.answers.subschema_for::<A>()
    }

    pub(crate) fn input<I: JsonSchema>(&mut self) -> Value {
        let mut schema = self.inputs.subschema_for::<I>().to_value();
        drop_null_defaults(&mut schema);
        schema
    }

    /// A parameter for each field of `Q`.
    pub(crate) fn query<Q: JsonSchema>(&mut self) -> Vec<Value> {
        let schema = self.input::<Q>();
        let required = |name: &str| {
            let names = schema["required"].as_array();
            names.is_some_and(|names| names.iter().any(|required| required == name))
        };
        let fields = schema["properties"].as_object().into_iter().flatten();
        fields
            .map(|(name, schema)| {
                let mut schema = schema.clone();
                let description = schema
                    .as_object_mut()
                    .and_then(|schema| schema.remove("description"));
                json!({
                    "name": name,
                    "in": "query",
                    "required": required(name),
                    "description": description,
                    "schema": not_null(schema),
                })
            })
            .collect()
    }
}

/// An absent field isn't always the same as null: in an update, it leaves the value unchanged.
fn drop_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| name != "default" || !value.is_null());
            members.values_mut().for_each(drop_null_defaults);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_null_defaults),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Removes null from a parameter's type: a query can't contain null.
fn not_null(mut schema: Value) -> Value {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            schema["type"] = only.clone();
        }
    }
    schema
}

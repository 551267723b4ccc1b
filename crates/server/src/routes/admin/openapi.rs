//! The OpenAPI document, generated from the routes and from their handlers' types so that it is never outdated.

use std::sync::LazyLock;

use axum::Json;
use axum::routing::MethodFilter;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};
use weir_api::admin::Nothing;
use weir_api::error::ErrorBody;

use super::ROUTES;
use super::endpoint::Call;
use crate::error::ApiError;
use crate::{Auth, Handler, Route};

const DEFINITIONS: &str = "/components/schemas";

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

pub(crate) async fn show(_: Call<Nothing, Nothing>) -> Result<Json<Value>, ApiError> {
    Ok(Json(DOCUMENT.clone()))
}

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
    fn new() -> Self {
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

fn document() -> Value {
    let mut schemas = Schemas::new();
    let error = schemas.answer::<ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let Handler::Described(_) = route.handler else {
            continue;
        };
        let operation = operation(route, &mut schemas, &error);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weir's administrative API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Accounts, keys, money and records. Amounts are USD as text, times are RFC 3339.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.answers.take_definitions(true),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas, error: &Schema) -> Value {
    let (Handler::Described(endpoint), Auth::Admin(roles)) = (route.handler, route.auth) else {
        return Value::Null;
    };
    let endpoint = endpoint(MethodFilter::GET);
    let Operation {
        parameters,
        body,
        answer,
    } = (endpoint.describe)(schemas);
    let roles: Vec<_> = roles.iter().map(|role| role.name()).collect();
    let in_path = route.path.split(['{', '}']).skip(1).step_by(2).map(|name| {
        let description = match name {
            "account" => "An account's id or name.",
            _ => "A key's id: its public part.",
        };
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": {"type": "string"},
        })
    });
    let mut operation = json!({
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "description": format!("For keys with the role {}.", roles.join(", ")),
        "parameters": in_path.chain(parameters).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "What was asked for.", "content": answer},
            "default": {"description": "An error.", "content": {"application/json": {"schema": error}}},
        },
    });
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

//! The OpenAPI document, generated from the routes and from their handlers' types so that it is never outdated.

use std::sync::LazyLock;

use axum::Json;
use axum::routing::MethodFilter;
use schemars::Schema;
use serde_json::{Map, Value, json};
use weir_api::admin::Nothing;
use weir_api::error::ErrorBody;

use super::ROUTES;
use super::endpoint::Call;
use super::schemas::{Operation, Schemas};
use crate::error::ApiError;
use crate::route::{Auth, Handler, Route};

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

pub(crate) async fn show(_: Call<Nothing, Nothing>) -> Result<Json<Value>, ApiError> {
    Ok(Json(DOCUMENT.clone()))
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
            "schemas": schemas.definitions(),
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

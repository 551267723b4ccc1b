//! The OpenAPI document describes exactly the routes that exist.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_server::{Auth, routes};

use super::Desk;

#[tokio::test]
async fn every_route_is_in_the_document() {
    let desk = Desk::new().await;
    let document = &desk.document;
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(names.insert(name), "{operation}");
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path");
            assert_eq!(in_path.count(), path.matches('{').count(), "{path}");
            // A client that fills in defaults must not reset settings to null.
            assert!(
                !operation.to_string().contains(r#""default":null"#),
                "{path}"
            );
            for parameter in parameters {
                assert!(parameter["description"].is_string(), "{path}: {parameter}");
            }
        }
    }
    let routes = routes().filter(|route| matches!(route.auth, Auth::Admin(_)));
    let served: BTreeSet<_> = routes
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described, served);
    for reference in references(document) {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
    assert!(document["components"]["schemas"].as_object().unwrap().len() > 10);
}

fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            own.into_iter()
                .chain(members.values().flat_map(references))
                .collect()
        }
        Value::Array(values) => values.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Operations that move money declare the idempotency key, and updates declare their fields.
#[tokio::test]
async fn what_operations_say() {
    let desk = Desk::new().await;
    let operation =
        |method: &str, path: &str| &desk.document["paths"][format!("/admin/v1{path}")][method];
    let credit = operation("post", "/accounts/{account}/credits");
    let header = credit["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["in"] == "header");
    assert_eq!(header.unwrap()["required"], true);
    let key = operation("post", "/accounts/{account}/keys");
    let header = key["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["in"] == "header");
    assert_eq!(header.unwrap()["required"], false);
    let schema = |operation: &Value| {
        operation["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    assert_eq!(schema(credit)["additionalProperties"], false);
    assert_eq!(schema(credit)["required"], serde_json::json!(["amount"]));
    let update = schema(operation("patch", "/accounts/{account}"));
    assert!(update.get("required").is_none(), "{update}");
    let list = operation("get", "/accounts");
    let limit = list["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "limit");
    let limit = &limit.unwrap()["schema"];
    assert_eq!(
        (&limit["type"], &limit["maximum"]),
        (&"integer".into(), &500.into()),
        "{limit}"
    );
}

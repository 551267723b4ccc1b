//! Random schemas: a schema that is enforced completely only allows documents that satisfy it, and no schema takes more
//! work than is allowed.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weir_inference::constraint::{COMPILE_STEPS_MAX, Cancel, CompileError, Constraints, Grammar};
use weir_inference::sim::{SimTokenizer, random_text};

static CONSTRAINTS: LazyLock<Constraints> =
    LazyLock::new(|| Constraints::new(Arc::new(SimTokenizer)));
const DOCUMENTS: u64 = 4;

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "kind", "x-1"]).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-20..20_i64).prop_map(Value::from),
        (-40..40_i64).prop_map(|n| json!(n as f64 / 4.0)),
        Just(json!(9_007_199_254_740_993_u64)),
    ]
}

fn literal() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => prop::sample::select(vec!["", "a", "bb", "\u{1}", "ü\"\\"]).prop_map(Value::from),
        2 => number(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([1, "a"])),
        1 => Just(json!({"a": 1, "kind": null})),
    ]
}

/// A single keyword without schemas inside.
fn plain() -> impl Strategy<Value = (String, Value)> {
    let kinds = vec![
        "null", "boolean", "integer", "number", "string", "array", "object",
    ];
    let kind = prop::sample::select(kinds);
    let pattern = prop::sample::select(vec![
        "^a",
        "b$",
        "^[a-c]{2,3}$",
        "[0-9]",
        "^(?!a)",
        "^(?=.*b)[ab]+$",
        "",
    ]);
    let own = |name: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |value| (name.to_owned(), value))
    };
    prop_oneof![
        4 => own("type", kind.clone().prop_map(Value::from).boxed()),
        2 => own("type", prop::collection::btree_set(kind, 1..4).prop_map(|kinds| json!(kinds)).boxed()),
        2 => own("const", literal().boxed()),
        3 => own("enum", prop::collection::vec(literal(), 1..5).prop_map(Value::from).boxed()),
        1 => own("minimum", number().boxed()),
        1 => own("exclusiveMaximum", number().boxed()),
        1 => own("multipleOf", prop::sample::select(vec![2.0, 3.0, 0.5]).prop_map(|n: f64| json!(n)).boxed()),
        1 => own("minLength", (0..4_u64).prop_map(Value::from).boxed()),
        1 => own("maxLength", (0..5_u64).prop_map(Value::from).boxed()),
        2 => own("pattern", pattern.prop_map(Value::from).boxed()),
        1 => own("minItems", (0..3_u64).prop_map(Value::from).boxed()),
        1 => own("maxItems", (0..4_u64).prop_map(Value::from).boxed()),
        1 => own("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        1 => own("minProperties", (0..3_u64).prop_map(Value::from).boxed()),
        1 => own("maxProperties", (0..4_u64).prop_map(Value::from).boxed()),
        3 => own("required", prop::collection::btree_set(name(), 0..3).prop_map(|names| json!(names)).boxed()),
        1 => own("dependentRequired", (name(), name()).prop_map(|(a, b)| json!({a: [b]})).boxed()),
        2 => own("$ref", prop::sample::select(vec!["#/$defs/a", "#/$defs/b"]).prop_map(Value::from).boxed()),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let object =
        |keywords: Vec<(String, Value)>| Value::from(keywords.into_iter().collect::<Map<_, _>>());
    let leaf = prop_oneof![
        6 => prop::collection::vec(plain(), 0..4).prop_map(object),
        1 => any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let one = inner.clone().boxed();
        let some = prop::collection::vec(inner.clone(), 1..4)
            .prop_map(Value::from)
            .boxed();
        let named = prop::collection::btree_map(name(), inner.clone(), 0..3)
            .prop_map(|named| json!(named))
            .boxed();
        let patterns = prop::collection::btree_map("\\^[ab]|b\\$", inner, 0..3)
            .prop_map(|named| json!(named))
            .boxed();
        let own = |name: &'static str, value: &BoxedStrategy<Value>| {
            value
                .clone()
                .prop_map(move |value| (name.to_owned(), value))
        };
        let keyword = prop_oneof![
            6 => own("properties", &named),
            2 => own("patternProperties", &patterns),
            3 => own("additionalProperties", &one),
            1 => own("propertyNames", &one),
            2 => own("items", &one),
            1 => own("prefixItems", &some),
            2 => own("contains", &one),
            2 => own("allOf", &some),
            2 => own("anyOf", &some),
            2 => own("oneOf", &some),
            2 => own("not", &one),
            2 => own("if", &one),
            1 => own("then", &one),
            1 => own("else", &one),
            1 => own("dependentSchemas", &named),
            1 => own("unevaluatedProperties", &one),
            1 => own("unevaluatedItems", &one),
            8 => plain(),
        ];
        prop::collection::vec(keyword, 1..5).prop_map(object)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_document_breaks_a_schema_that_is_enforced(root in schema(), a in schema(), b in schema()) {
        let Value::Object(mut root) = root else {
            return Ok(());
        };
        root.insert("$defs".to_owned(), json!({"a": a, "b": b}));
        let schema = Value::from(root);
        let cancel = Cancel::default();
        let compiled = CONSTRAINTS.compile(&Grammar::json_schema(&schema), &cancel);
        prop_assert!(cancel.steps() <= 2 * COMPILE_STEPS_MAX, "{} steps", cancel.steps());
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(CompileError::Invalid(invalid)) => {
                let is_known = ["nothing satisfies it", "on and on", "empty text"].iter().any(|why| invalid.message.contains(why));
                prop_assert!(is_known, "{}", invalid);
                return Ok(());
            }
            Err(CompileError::Cancelled) => panic!("nobody cancelled it"),
        };
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        for seed in 0..DOCUMENTS {
            let text = random_text(&compiled.constraint, seed, 600);
            prop_assert!(text.is_ok(), "{:?}", text);
            let Some(text) = text.unwrap() else {
                continue;
            };
            let document: Value = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
            let is_valid = !compiled.relaxed.is_empty() || validator.is_valid(&document);
            prop_assert!(is_valid, "{} breaks {}", text, schema);
        }
    }
}

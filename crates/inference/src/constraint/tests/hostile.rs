//! Schemas that recurse deeply or multiply.

use serde_json::{Value, json};

use super::*;

/// A schema of 7,700 levels: a chain of 175 definitions, each with 44 levels.
fn deep() -> Value {
    let mut definitions = serde_json::Map::new();
    for i in 0..175 {
        let mut schema = json!({"$ref": format!("#/$defs/a{}", i + 1)});
        for _ in 0..44 {
            schema = json!({"items": schema});
        }
        definitions.insert(format!("a{i}"), schema);
    }
    definitions.insert("a175".to_owned(), json!({"type": "null"}));
    json!({"$defs": definitions, "$ref": "#/$defs/a0"})
}

#[test]
fn depth_through_references_takes_no_stack() {
    let (compiler, schema) = (constraints(), deep().to_string());
    compiler.read_vocabulary();
    // A test's thread has a stack of 2 MB; the front end gets only 256 kB.
    let thread = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            let mut rules = rules::Rules::new();
            let start = rules.reserve(rules::Spacing::Json);
            let mut budget = budget::Budget::new(COMPILE_STEPS_MAX, Cancel::default());
            let schema = Schema::new(schema, SCHEMA_PARAM);
            let deviations = schema::compile(
                &schema,
                start,
                &mut rules,
                schema::Coarse::Exact,
                &mut budget,
            )
            .unwrap();
            (deviations.relaxed.len(), rules.prune(start))
        });
    let (relaxed, is_complete) = thread.unwrap().join().unwrap();
    assert!(
        is_complete && relaxed <= 1,
        "the last of so many levels may be left open: {relaxed}"
    );
    let compiled = compile(&Grammar::json_schema(&deep()));
    assert_eq!(walk(&compiled, &"[".repeat(2_000)), "goes on");
}

#[test]
fn small_schemas_that_multiply_are_bounded() {
    let numbers = |range: std::ops::Range<usize>| range.map(|i| i.to_string()).collect::<Vec<_>>();
    let all = |schema: Value, count: usize| vec![schema; count];
    let names = |count: usize, schema: Value| -> Value {
        numbers(0..count)
            .into_iter()
            .map(|name| (name, schema.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut consts: Vec<_> = (0..2_690).map(|i| json!({"const": i})).collect();
    consts.push(json!({"const": 2_689}));
    let mut all_of = vec![json!({"oneOf": consts})];
    all_of.extend(all(json!(true), 2_700));
    let patterns: serde_json::Map<_, _> = numbers(0..400)
        .into_iter()
        .map(|i| (format!("^{i}$"), json!(true)))
        .collect();
    let objects: Vec<_> = (0..30)
        .map(|i| json!({"properties": names(250, json!({"minLength": i}))}))
        .collect();
    let any = |count: usize| json!({"anyOf": (0..count).map(|i| json!({"properties": {"a": {"const": i}}})).collect::<Vec<_>>()});
    for (what, schema) in [
        ("patterns", json!({"patternProperties": patterns})),
        ("one of many", json!({"allOf": all_of})),
        (
            "required",
            json!({"type": "object", "required": numbers(0..8_000)}),
        ),
        ("objects", json!({"allOf": objects})),
        ("any of many twice", json!({"allOf": [any(900), any(900)]})),
        (
            "any of many, eight times",
            json!({"allOf": all(any(40), 8)}),
        ),
        ("deep", deep()),
        (
            "optional",
            json!({"type": "object", "properties": names(5_000, json!({}))}),
        ),
        (
            "patterns of one string",
            json!({"allOf": (0..200).map(|i| json!({"pattern": format!("a.{{{i}}}b")})).collect::<Vec<_>>()}),
        ),
        (
            "unicode",
            json!({"allOf": (0..200).map(|i| json!({"pattern": format!("^[\\p{{L}}{i}]{{{i}}}")})).collect::<Vec<_>>()}),
        ),
        (
            "states",
            json!({"pattern": "^[ab]*a[ab]{30}$", "minLength": 200}),
        ),
        (
            "multiples",
            json!({"allOf": (1..200).map(|i| json!({"multipleOf": i})).collect::<Vec<_>>()}),
        ),
        (
            "dependencies",
            json!({"dependentRequired": names(40, json!(["x"]))}),
        ),
        (
            "negations",
            json!({"allOf": (0..40).map(|i| json!({"not": {"required": [i.to_string(), format!("x{i}")]}})).collect::<Vec<_>>()}),
        ),
        (
            "conditions",
            json!({"allOf": (0..40).map(|i| json!({"if": {"required": [i.to_string()]}, "then": {"required": ["x"]}})).collect::<Vec<_>>()}),
        ),
        (
            "contains",
            json!({"type": "array", "contains": {"const": 1}, "minContains": 5_000, "maxContains": 5_000}),
        ),
        (
            "one of overlapping",
            json!({"oneOf": (0..300).map(|i| json!({"minLength": i})).collect::<Vec<_>>()}),
        ),
        (
            "literals",
            json!({"enum": (0..8_000).map(|i| json!(format!("{i}"))).collect::<Vec<_>>(), "pattern": "^[0-9]*7$"}),
        ),
        (
            "counted",
            json!({"type": "object", "properties": names(900, json!({})), "minProperties": 450, "maxProperties": 600}),
        ),
    ] {
        let cancel = Cancel::default();
        let compiled = constraints().compile(&Grammar::json_schema(&schema), &cancel);
        assert!(compiled.is_ok(), "{what}: {compiled:?}");
        assert!(
            cancel.steps() <= 2 * COMPILE_STEPS_MAX,
            "{what}: {} steps",
            cancel.steps()
        );
    }
}

#[test]
fn a_compile_ends_when_it_is_cancelled() {
    let cancel = Cancel::default();
    cancel.cancel();
    let compiled = constraints().compile(&Grammar::json_schema(&deep()), &cancel);
    assert_eq!(compiled.unwrap_err(), CompileError::Cancelled);
    assert!(
        cancel.steps() < COMPILE_STEPS_MAX / 10,
        "{}",
        cancel.steps()
    );
}

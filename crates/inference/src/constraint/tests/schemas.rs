//! Which parts of a schema are enforced, relaxed or refused.

use serde_json::{Value, json};

use super::*;

/// JSON pointers, within the schema, to the places that aren't enforced.
fn relaxed(schema: &Value) -> Vec<String> {
    let compiled = constraints().compile(&Grammar::json_schema(schema), &Cancel::default());
    let compiled = compiled.unwrap_or_else(|error| panic!("{error} of {schema}"));
    let pointers = compiled.relaxed.iter().map(|relaxed| {
        let prefix = "/response_format/json_schema/schema";
        relaxed.pointer.strip_prefix(prefix).unwrap().to_owned()
    });
    pointers.collect()
}

/// Why a schema is refused.
fn refusal(schema: &Value, is_strict: bool) -> Option<Invalid> {
    let schema = Schema::from(schema.clone()).strict(is_strict);
    match constraints().compile(&Grammar(Part::Json(schema)), &Cancel::default()) {
        Ok(_) => None,
        Err(CompileError::Invalid(invalid)) => Some(invalid),
        Err(CompileError::Cancelled) => panic!("nobody cancelled it"),
    }
}

#[test]
fn annotations_say_nothing() {
    for (keyword, value) in [
        ("id", json!("x")),
        ("readonly", json!(true)),
        ("name", json!("x")),
        ("example", json!({})),
        ("nullable", json!(true)),
        ("$anchor", json!("x")),
        ("contentSchema", json!({"type": "object"})),
        ("x-vendor", json!([])),
        ("x-guidance", json!({"whitespace_flexible": true})),
        ("minimun", json!(3)),
        ("strict", json!(true)),
        ("uniqueItems", json!(false)),
        ("propertyNames", json!({"type": "string"})),
        ("format", json!("credit-card")),
        ("format", json!("int64")),
        ("discriminator", json!({"propertyName": "kind"})),
        ("$vocabulary", json!({})),
        ("then", json!({"type": "null"})),
    ] {
        let mut schema = json!({"type": "object", "additionalProperties": {"type": "string"}});
        schema[keyword] = value;
        assert_eq!(relaxed(&schema), [""; 0], "{schema}");
        assert_eq!(refusal(&schema, true), None, "{schema}");
        let compiled = compile(&Grammar::json_schema(&schema));
        assert_eq!(walk(&compiled, r#"{"a":"b"}"#), "ends", "{schema}");
        assert_eq!(walk(&compiled, r#"{"a":1"#), "not at 5", "{schema}");
    }
}

#[test]
fn what_cannot_be_enforced_is_listed_and_refused_where_it_is_strict() {
    let check = |schema: Value, pointer: &str| {
        let within = json!({"type": "object", "properties": {"a/b": schema}});
        let expected = format!("/properties/a~1b{pointer}");
        assert_eq!(relaxed(&within), [expected.as_str()], "{schema}");
        let Some(Invalid { param, message }) = refusal(&within, true) else {
            panic!("{schema} is taken")
        };
        assert_eq!(param, SCHEMA_PARAM);
        assert!(
            message.contains(&format!("{expected} can't be enforced")),
            "{message}"
        );
    };
    check(
        json!({"type": "array", "uniqueItems": true}),
        "/uniqueItems",
    );
    check(
        json!({"type": "string", "pattern": "\\bfoo\\b"}),
        "/pattern",
    );
    check(json!({"type": "string", "pattern": "(a)\\1"}), "/pattern");
    check(json!({"type": "string", "pattern": "("}), "/pattern");
    check(json!({"$ref": "https://example.com/schema"}), "/$ref");
    check(json!({"$ref": "#/$defs/none"}), "/$ref");
    check(
        json!({"type": "object", "minProperties": 2}),
        "/minProperties",
    );
    check(json!({"type": "any"}), "/type");
    check(json!({"type": "object", "required": true}), "/required");
    check(json!({"minimum": "3"}), "/minimum");
    check(json!({"multipleOf": 1_000_003}), "/multipleOf");
    check(json!({"multipleOf": 0}), "/multipleOf");
    // Numbers so large that a double can't tell whether they are multiples.
    for (multiple, least, most) in [
        (
            7,
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_741_000_u64),
        ),
        (
            10,
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_741_012_u64),
        ),
        (
            7,
            json!(4_503_599_627_370_496_u64),
            json!(4_503_599_627_370_516_u64),
        ),
    ] {
        check(
            json!({"type": "integer", "multipleOf": multiple, "minimum": least, "maximum": most}),
            "/multipleOf",
        );
    }
    check(json!({"minLength": LENGTH_MAX + 1}), "/minLength");
    check(json!({"minItems": SCHEMA_ITEMS_MAX + 1}), "/minItems");
    check(json!({"properties": 3}), "/properties");
    check(json!({"anyOf": 3}), "/anyOf");
    check(json!({"enum": 3}), "/enum");
    check(
        json!({"patternProperties": {"(?<=a)b": {}}}),
        "/patternProperties/(?<=a)b",
    );
    check(json!({"not": {"multipleOf": 3}}), "/not");
}

/// Multiples within bounds are enforced, or relaxed if that takes too much work; they are never refused.
#[test]
fn multiples_within_bounds() {
    for kind in ["integer", "number"] {
        for multiple in [json!(7), json!(60), json!(128), json!(4_999), json!(9_973)] {
            for (least, most) in [
                (1_000, 2_000),
                (14, 12_095),
                (-999_971, -999_929),
                (0, 86_400),
            ] {
                let schema = json!({"type": kind, "multipleOf": multiple, "minimum": least, "maximum": most});
                let multiple = multiple.as_i64().unwrap();
                let is_possible = (least..=most).any(|number| number % multiple == 0);
                match refusal(&schema, false) {
                    None => {}
                    Some(invalid) => assert!(
                        !is_possible && invalid.message.contains("nothing satisfies it"),
                        "{schema}: {invalid}"
                    ),
                }
            }
        }
    }
}

#[test]
fn a_multiple_of_one_is_whole() {
    let inside = ["0", "-7", "12"];
    check_texts(
        json!({"type": "number", "multipleOf": 1}),
        &inside,
        &["1.5", "-0.2"],
    );
    check_texts(
        json!({"multipleOf": 1.0, "minimum": 1}),
        &["1", "\"text\""],
        &["1.5", "0"],
    );
}

#[test]
fn too_many_excluded_numbers_are_not_excluded_in_part() {
    let numbers: Vec<_> = (0..1_200).collect();
    let schema = json!({"type": "number", "not": {"enum": numbers}});
    assert_eq!(relaxed(&schema).len(), 1, "{:?}", relaxed(&schema));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |schema: Value, expected: &str| {
        for is_strict in [false, true] {
            let invalid =
                refusal(&schema, is_strict).unwrap_or_else(|| panic!("{schema} is taken"));
            assert_eq!(invalid.param, SCHEMA_PARAM);
            assert!(
                invalid.message.contains(expected),
                "{invalid} of {schema}, not {expected:?}"
            );
        }
    };
    let within = |schema: Value| json!({"type": "array", "items": schema, "minItems": 1});
    check(json!(3), "not a number");
    check(json!(false), "nothing satisfies it");
    check(json!({"enum": []}), "nothing satisfies it");
    check(
        json!({"type": "string", "minLength": 3, "maxLength": 2}),
        "nothing satisfies it",
    );
    check(
        json!({"type": "string", "pattern": "^a$", "minLength": 2}),
        "nothing satisfies it",
    );
    check(
        json!({"type": "integer", "minimum": 0.1, "maximum": 0.9}),
        "nothing satisfies it",
    );
    check(
        json!({"type": "string", "enum": [1, 2]}),
        "nothing satisfies it",
    );
    check(
        json!({"allOf": [{"type": "string"}, {"type": "null"}]}),
        "nothing satisfies it",
    );
    check(
        json!({"required": ["a"], "type": "object", "additionalProperties": false}),
        "nothing satisfies it",
    );
    check(
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        "nothing satisfies it",
    );
    check(
        json!({"type": "array", "minItems": 3, "maxItems": 2}),
        "nothing satisfies it",
    );
    check(json!({"not": {}}), "nothing satisfies it");
    check(json!({"$ref": "#"}), "on and on");
    let loops = json!({"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}});
    let mut schema = within(json!({"$ref": "#/$defs/a"}));
    schema["$defs"] = loops;
    check(schema, "on and on");
    check(json!({"const": "x".repeat(SCHEMA_BYTES_MAX)}), "bytes");
}

/// Checks that a schema is enforced completely, allows the texts `inside` and doesn't allow the texts `outside`.
fn check_texts(schema: Value, inside: &[&str], outside: &[&str]) {
    assert_eq!(relaxed(&schema), [""; 0], "{schema}");
    let compiled = compile(&Grammar::json_schema(&schema));
    for text in inside {
        let end = walk(&compiled, text);
        assert!(
            end == "ends" || end == "may end",
            "{text} of {schema}: {end}"
        );
    }
    for text in outside {
        let end = walk(&compiled, text);
        assert!(end != "ends" && end != "may end", "{text} of {schema}");
    }
}

#[test]
fn values_are_exact() {
    let check = |text: &str, inside: &[&str], outside: &[&str]| {
        let compiled = compile(&Grammar(Part::Json(
            Schema::new(text, SCHEMA_PARAM).strict(true),
        )));
        for text in inside {
            assert!(
                matches!(&*walk(&compiled, text), "ends" | "may end"),
                "{text}"
            );
        }
        for text in outside {
            assert!(
                !matches!(&*walk(&compiled, text), "ends" | "may end"),
                "{text}"
            );
        }
    };
    check(
        r#"{"const":1234567890123456789}"#,
        &["1234567890123456789"],
        &["1234567890123456768"],
    );
    check(
        r#"{"enum":[9007199254740993]}"#,
        &["9007199254740993"],
        &["9007199254740992"],
    );
    check(
        r#"{"const":123456789.12345679}"#,
        &["123456789.12345679"],
        &["123456789.12345678"],
    );
    check(
        r#"{"const":123456789012345678901234567890}"#,
        &["123456789012345678901234567890"],
        &["123456789012345677877719597056"],
    );
    check(
        r#"{"const":0.12345678901234567890123}"#,
        &["0.12345678901234567890123"],
        &["0.12345678901234568"],
    );
    check(r#"{"const":1e3}"#, &["1000"], &["1001"]);
    check(r#"{"const":-0.0}"#, &["0"], &["1"]);
    let bounds = r#"{"type":"integer","minimum":9007199254740993,"maximum":9007199254740995}"#;
    check(
        bounds,
        &["9007199254740993", "9007199254740995"],
        &["9007199254740992", "9007199254740996"],
    );
    check(r#"{"const":"a\u001fb"}"#, &[r#""a\u001fb""#], &[r#""ab""#]);
    check(
        r#"{"enum":["\u0000","\u007f"]}"#,
        &[r#""\u0000""#, "\"\u{7f}\""],
        &[r#""""#],
    );
    check(
        r#"{"const":{"a\u0001":["\u0002",1.50]}}"#,
        &[r#"{"a\u0001":["\u0002",1.5]}"#],
        &[r#"{"a":["",1.5]}"#],
    );
    check(
        r#"{"type":"string","pattern":"^\u0003$"}"#,
        &[r#""\u0003""#],
        &[r#""""#],
    );
    check(
        r#"{"required":["a\"b"],"type":"object","properties":{"a\"b":{"const":1}}}"#,
        &[r#"{"a\"b":1}"#],
        &[r#"{"ab":1}"#],
    );
    let too_long = format!(r#"{{"const":1{}}}"#, "0".repeat(NUMBER_DIGITS_MAX + 1));
    assert!(
        constraints()
            .compile(
                &Grammar(Part::Json(Schema::new(too_long, SCHEMA_PARAM).strict(true))),
                &Cancel::default()
            )
            .is_err()
    );
}

#[test]
fn listed_values_are_compared_with_what_they_must_be_multiples_of() {
    check_texts(json!({"const": 0, "multipleOf": 3}), &["0"], &["3"]);
    check_texts(json!({"const": 0.0, "multipleOf": 0.01}), &["0"], &["1"]);
    check_texts(
        json!({"enum": [0, 5, 7, -6, 3e25], "multipleOf": 3}),
        &["0", "-6", "30000000000000000000000000"],
        &["5", "7"],
    );
    check_texts(
        json!({"enum": [[0], [3], [4]], "items": {"multipleOf": 3}}),
        &["[0]", "[3]"],
        &["[4]"],
    );
    // A number that is excluded and out of bounds anyway takes nothing away.
    check_texts(
        json!({"type": "integer", "minimum": 1e20, "not": {"const": 5}}),
        &["100000000000000000000"],
        &["5"],
    );
    check_texts(
        json!({"type": "integer", "multipleOf": 3, "minimum": 0, "maximum": 0}),
        &["0"],
        &["3"],
    );
}

#[test]
fn keywords_that_choose_are_enforced() {
    check_texts(
        json!({"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer"}}, "required": ["kind"],
               "additionalProperties": false,
               "if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["size"]}, "else": {"properties": {"size": false}}}),
        &[r#"{"kind":"a","size":1}"#, r#"{"kind":"b"}"#],
        &[r#"{"kind":"a"}"#, r#"{"kind":"b","size":1}"#],
    );
    check_texts(
        json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "additionalProperties": false,
               "dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"properties": {"b": false}}}}),
        &["{}", r#"{"b":2}"#, r#"{"a":1,"b":2}"#, r#"{"c":3}"#],
        &[r#"{"a":1}"#, r#"{"b":2,"c":3}"#],
    );
    let shape = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}, "x": {"type": "integer"}}, "required": ["kind", "x"]});
    check_texts(
        json!({"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], "discriminator": {"propertyName": "kind"},
               "$defs": {"Cat": shape("cat"), "Dog": shape("dog")}}),
        &[r#"{"kind":"cat","x":1}"#, r#"{"kind":"dog","x":2}"#],
        &[r#"{"kind":"cow","x":1}"#],
    );
    check_texts(
        json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        &["1.5", "-0.25"],
        &["1", "-7"],
    );
    check_texts(
        json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]}),
        &[r#""a""#, r#""abcd""#],
        &[r#""ab""#],
    );
    check_texts(
        json!({"oneOf": [{"const": 1}, {"const": 1}, {"type": "integer", "minimum": 0}]}),
        &["0", "2"],
        &["1"],
    );
    check_texts(
        json!({"not": {"type": "string"}}),
        &["1", "null", "[]"],
        &[r#""a""#],
    );
    check_texts(
        json!({"type": "string", "not": {"enum": ["a", "b"]}}),
        &[r#""c""#, r#""ab""#],
        &[r#""a""#, r#""b""#],
    );
    check_texts(
        json!({"type": "integer", "not": {"const": 5}}),
        &["4", "55"],
        &["5"],
    );
    check_texts(
        json!({"type": "object", "not": {"required": ["a"]}}),
        &[r#"{"b":1}"#, "{}"],
        &[r#"{"a":1}"#],
    );
    check_texts(
        json!({"type": "array", "contains": {"const": 5}, "maxItems": 3}),
        &["[5]", "[1,5]", "[5,5,5]"],
        &["[]", "[1]", "[1,2,3]"],
    );
    check_texts(
        json!({"type": "array", "items": {"type": "integer"}, "contains": {"minimum": 9}, "minContains": 2, "maxContains": 2}),
        &["[9,10]", "[1,9,2,9]"],
        &["[9]", "[9,9,9]"],
    );
    check_texts(
        json!({"type": "array", "contains": {"const": 5}}),
        &["[1,2,5]", "[5,6,7]"],
        &["[]", "[1,2]", "[1 5]"],
    );
    check_texts(
        json!({"type": "array", "items": {"enum": ["a", "b", 3]}, "uniqueItems": true}),
        &["[]", r#"["b","a"]"#, r#"[3,"a","b"]"#],
        &[r#"["a","a"]"#, r#"["a",3,"a"]"#],
    );
    check_texts(
        json!({"type": "array", "items": {"type": "boolean"}, "uniqueItems": true, "minItems": 1}),
        &["[true]", "[false,true]"],
        &["[]", "[true,true]"],
    );
    check_texts(
        json!({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "properties": {"A": {}}}),
        &[r#"{"ab":1}"#],
        &[r#"{"A":1}"#, r#"{"a1":1}"#],
    );
    check_texts(
        json!({"allOf": [{"properties": {"a": {"const": 1}}}], "type": "object", "properties": {"b": {"const": 2}}, "unevaluatedProperties": false}),
        &[r#"{"a":1,"b":2}"#, r#"{"b":2}"#, "{}"],
        &[r#"{"c":3}"#, r#"{"a":2}"#],
    );
    check_texts(
        json!({"type": "string", "pattern": "^(?=.*[0-9])(?!admin)[a-z0-9]{3,}$"}),
        &[r#""abc1""#],
        &[r#""abc""#, r#""admin1""#],
    );
    // An `allOf` of trees that recurse in parallel.
    check_texts(
        json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
               "$defs": {"a": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a"}, "x": {"type": "integer"}}, "additionalProperties": false},
                         "b": {"properties": {"next": {"$ref": "#/$defs/b"}, "x": {"minimum": 3}}}}}),
        &[r#"{"next":{"next":{"x":3}},"x":4}"#],
        &[r#"{"next":{"x":2"#, r#"{"x":2}"#],
    );
}

#[test]
fn references_lead_where_they_should() {
    let check = |reference: &str| {
        let schema = json!({
            "$id": "https://example.com/root.json",
            "type": "array", "items": {"$ref": reference},
            "$defs": {"a/b c~d%": {"const": 7, "$anchor": "seven"}, "other": {"$id": "other.json", "const": 7}},
            "components": {"schemas": {"X": {"const": 7}}},
        });
        check_texts(schema, &["[7]", "[]"], &["[8]"]);
    };
    for reference in [
        "#/$defs/a~1b%20c~0d%25",
        "#/$defs/a~1b c~0d%25",
        "#seven",
        "#/components/schemas/X",
        "other.json",
        "https://example.com/other.json",
        "root.json#/components/schemas/X",
    ] {
        check(reference);
    }
    check_texts(
        json!({"$dynamicAnchor": "node", "type": "object", "properties": {"children": {"type": "array", "items": {"$dynamicRef": "#node"}}}, "additionalProperties": false}),
        &[r#"{"children":[{},{"children":[]}]}"#],
        &[r#"{"children":[1]}"#],
    );
    // Addresses and anchors within values, and properties with such names, don't count.
    check_texts(
        json!({
            "type": "array", "items": {"anyOf": [{"$ref": "#seven"}, {"$ref": "nine.json"}]},
            "default": [{"$id": "nine.json", "const": 1}],
            "$defs": {
                "a": {"enum": [{"$anchor": "seven", "const": 1}]},
                "b": {"const": {"$id": "nine.json", "const": 1}},
                "c": {"properties": {"$anchor": {"const": 1}, "$id": {"const": 1}, "const": {"$anchor": "seven", "const": 7}}},
                "d": {"$id": "nine.json", "const": 9},
            },
        }),
        &["[7,9]", "[]"],
        &["[1]"],
    );
    // A reference that could lead to two places isn't enforced.
    let two = json!({"$dynamicAnchor": "x", "properties": {"a": {"$dynamicRef": "#x"}}, "$defs": {"b": {"$id": "b", "$dynamicAnchor": "x"}}});
    assert_eq!(relaxed(&two), ["/properties/a/$dynamicRef"]);
}

#[test]
fn references_are_resolved_against_the_address_beside_them() {
    let check = |schema: Value| check_texts(schema, &["true"], &["1"]);
    let yes = || json!({"type": "boolean"});
    for (id, reference) in [
        ("https://e.com/r", "https://e.com/r#/$defs/x"),
        ("https://e.com/r", "r#/$defs/x"),
        ("https://e.com/r", "#/$defs/x"),
        ("r", "r#/$defs/x"),
        ("urn:example:r", "urn:example:r#/$defs/x"),
        ("urn:example:r", "#/$defs/x"),
        ("urn:example:r", "#named"),
        ("https://e.com/a/b/c/", "../../d.json"),
        ("https://e.com/a/b/c/", "https://e.com/a/d.json"),
        ("https://e.com/a/b/c/", "/a/d.json"),
        ("urn:example:r", "../../d.json"),
    ] {
        let (mut named, mut other) = (yes(), yes());
        named["$anchor"] = json!("named");
        other["$id"] = json!("../../d.json");
        check(json!({"$id": id, "$ref": reference, "$defs": {"x": named, "d": other}}));
    }
    // Below the root, from one resource to another.
    check(json!({
        "$id": "https://e.com/root.json", "$ref": "x.json",
        "$defs": {
            "x": {"$id": "x.json", "$ref": "deep/y.json#/$defs/z"},
            "y": {"$id": "deep/y.json", "$ref": "../x.json", "$defs": {"z": {"$ref": "y.json#yes"}, "yes": {"$anchor": "yes", "type": "boolean"}}},
        },
    }));
    // Up to draft 7 an address beside a reference is none, and in draft 4 it has another name.
    let old = |draft: &str, name: &str| {
        json!({
            "$schema": format!("http://json-schema.org/draft-{draft}/schema#"),
            name: "https://e.com/root.json",
            "allOf": [{name: "https://e.com/deep/", "$ref": "x.json"}],
            "definitions": {"x": {name: "x.json", "type": "boolean"}, "y": {name: "deep/x.json", "type": "number"}},
        })
    };
    check(old("07", "$id"));
    check(old("06", "$id"));
    check(old("04", "id"));
    let mut new = old("07", "$id");
    new["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    check_texts(new, &["1"], &["true"]);
}

/// A format may be written by fewer strings than it has; its opposite has none of them.
#[test]
fn the_opposite_of_a_format_has_no_string_of_it() {
    let text = |value: &str| json!(value).to_string();
    for (format, value) in [
        ("uri", "file:///etc/passwd"),
        ("uri", "http://[::1]/"),
        ("uri", "a:"),
        ("ipv6", "::ffff:1.2.3.4"),
        ("ipv6", "2001:db8::192.0.2.1"),
        ("hostname", "xn--bcher-kva.de"),
        ("hostname", "a--b"),
        ("email", "\"a b\"@c.de"),
        ("email", "a@xn--bcher-kva.de"),
        ("time", "23:59:60Z"),
        ("time", "15:59:60-08:00"),
        ("date", "0000-01-01"),
        ("date-time", "1990-12-31T15:59:60-08:00"),
        ("duration", "p1d"),
    ] {
        let value = text(value);
        let listed = json!([serde_json::from_str::<Value>(&value).unwrap(), "-"]);
        // The value is one of the format, wherever it stands.
        check_texts(
            json!({"enum": listed, "format": format}),
            &[&value],
            &["\"-\""],
        );
        check_texts(
            json!({"enum": listed, "not": {"format": format}}),
            &["\"-\""],
            &[&value],
        );
        check_texts(
            json!({"enum": listed, "if": {"format": format}, "then": false}),
            &["\"-\""],
            &[&value],
        );
        check_texts(
            json!({"type": "string", "not": {"format": format}, "maxLength": 30}),
            &[r#""""#, "\"-\""],
            &[&value],
        );
        check_texts(
            json!({"type": "string", "if": {"format": format}, "else": {"maxLength": 1}}),
            &["\"-\""],
            &["\"--\""],
        );
        let invalid = json!({"const": "-", "format": format});
        let invalid = refusal(&invalid, false).unwrap().message;
        assert!(
            invalid.contains("nothing satisfies it"),
            "{format}: {invalid}"
        );
    }
    check_texts(
        json!({"type": "string", "oneOf": [{"format": "uri"}, {"pattern": "^file:"}]}),
        &[r#""http://a/""#, r#""file: ""#],
        &[r#""file:///x""#, r#""file:x""#, "\"x\""],
    );
    check_texts(
        json!({"type": "object", "properties": {"a": {"const": "file:///x"}, "b": {"type": "integer"}}, "required": ["a"],
               "additionalProperties": false,
               "if": {"properties": {"a": {"format": "uri"}}}, "then": {"required": ["b"]}, "else": false}),
        &[r#"{"a":"file:///x","b":1}"#],
        &[r#"{"a":"file:///x"}"#],
    );
    // Names, too.
    check_texts(
        json!({"type": "object", "required": ["file:///x"], "propertyNames": {"format": "uri"}}),
        &[r#"{"file:///x":1}"#],
        &["{}"],
    );
    check_texts(
        json!({"type": "object", "patternProperties": {"(?=.*b)a": {"const": 1}}, "additionalProperties": {"const": 2}}),
        &[r#"{"ab":1}"#, r#"{"x":2}"#],
        &[r#"{"xab":2}"#, r#"{"ab":2}"#],
    );
    check_texts(
        json!({"type": "string", "not": {"pattern": "(?=.*b)a"}, "maxLength": 5}),
        &[r#""x""#],
        &[r#""xab""#, r#""ab""#],
    );
    check_texts(
        json!({"const": "xab", "pattern": "(?=.*b)a"}),
        &[r#""xab""#],
        &[],
    );
}

#[test]
fn a_limit_beyond_what_is_enforced_is_no_other_limit() {
    let check = |schema: Value, pointer: &str| {
        assert_eq!(relaxed(&schema), [pointer], "{schema}");
        let message = refusal(&schema, true).unwrap().message;
        assert!(message.contains("can't be enforced"), "{schema}: {message}");
    };
    for (keyword, kind) in [
        ("maxLength", "string"),
        ("maxItems", "array"),
        ("maxProperties", "object"),
    ] {
        for limit in [json!(50_000), json!(1e25)] {
            check(json!({"type": kind, "not": {keyword: limit}}), "/not");
        }
    }
    let long = json!({"const": "x".repeat(25_000), "maxLength": 30_000});
    assert_eq!(refusal(&long, true), None);
    let message = refusal(
        &json!({"const": "x".repeat(25_000), "maxLength": 24_999}),
        false,
    );
    assert!(message.unwrap().message.contains("nothing satisfies it"));
}

#[test]
fn what_is_evaluated_is_what_any_schema_that_holds_evaluates() {
    let prefixed = json!({"type": "array", "prefixItems": [{"type": "integer"}], "contains": {"type": "string"}, "unevaluatedItems": false});
    check_texts(
        prefixed.clone(),
        &[r#"[1,"a"]"#, r#"[1,"a","b"]"#],
        &["[1]", r#"[1,"a",2]"#, r#"["a"]"#, r#"[1,2,"a"]"#],
    );
    let mut before = prefixed;
    before["$schema"] = json!("https://json-schema.org/draft/2019-09/schema");
    let invalid = refusal(&before, false).unwrap().message;
    assert!(invalid.contains("nothing satisfies it"), "{invalid}");
    check_texts(
        json!({"type": "array", "allOf": [{"contains": {"const": 1}, "minContains": 0}, {"contains": {"const": 2}}],
               "unevaluatedItems": {"type": "null"}, "maxItems": 3}),
        &["[2]", "[1,2,null]", "[2,2]"],
        &["[1]", "[2,3]", "[]"],
    );
    // Around the schema with `contains`, and in a tree.
    check_texts(
        json!({"type": "array", "unevaluatedItems": false, "anyOf": [{"contains": {"$ref": "#"}}, {"maxItems": 0}]}),
        &["[[]]", "[[[]],[]]", "[]"],
        &["[1]", "[[],1]"],
    );
    let both = |any_of: Value| json!({"type": "object", "properties": {"a": {"const": 1}}, "unevaluatedProperties": false, "anyOf": any_of, "required": ["a", "b"]});
    check_texts(
        both(json!([{"properties": {"b": {"const": 2}}, "required": ["b"]}, true])),
        &[r#"{"a":1,"b":2}"#],
        &[r#"{"a":1}"#, r#"{"a":1,"b":3}"#, r#"{"a":1,"b":2,"c":3}"#],
    );
    check_texts(
        json!({"type": "object", "unevaluatedProperties": false, "required": ["a", "b"],
               "anyOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}, {"properties": {"c": {"const": 3}}}]}),
        &[r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2,"c":3}"#],
        &[r#"{"a":1,"b":3}"#, r#"{"a":1}"#, r#"{"a":1,"b":2,"d":4}"#],
    );
    // An `if` by itself evaluates as well.
    check_texts(
        json!({"type": "object", "unevaluatedProperties": false, "if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "required": ["a"]}),
        &[r#"{"a":1}"#],
        &[r#"{"a":2}"#, "{}"],
    );
    check_texts(
        json!({"type": "integer", "if": {"multipleOf": 3}, "not": {"const": 1, "if": {"multipleOf": 3}}}),
        &["2", "3"],
        &["1"],
    );
    // More than are told apart: perhaps something satisfies it.
    let names: Vec<_> = (0..8).map(|i| format!("p{i}")).collect();
    let branches: Vec<_> = (names.iter())
        .map(|name| json!({"properties": {name: {"const": 1}}}))
        .collect();
    let many = json!({"type": "object", "unevaluatedProperties": false, "required": names, "anyOf": branches});
    assert_eq!(relaxed(&many), ["/unevaluatedProperties"]);
    let invalid = refusal(&many, true).unwrap().message;
    assert!(invalid.contains("/anyOf can't be enforced"), "{invalid}");
    let narrow = json!({"type": "string", "format": "date", "pattern": "^0000-"});
    assert_eq!(relaxed(&narrow), ["/format", "/pattern"]);
}

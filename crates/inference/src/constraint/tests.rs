mod grammars;
mod hostile;
mod schemas;

use serde_json::json;
use weir_engine::Token;
use weir_engine::request::{SCHEMA_PARAM, Schema};

use super::*;
use crate::model::{Bos, Encoded};
use crate::sim::{END, PromptMasks, SimTokenizer};
use crate::specials::{Names, Specials};

fn constraints() -> Constraints {
    Constraints::new(Arc::new(SimTokenizer))
}

fn compile(grammar: &Grammar) -> Constraint {
    let compiled = constraints().compile(grammar, &Cancel::default());
    compiled
        .unwrap_or_else(|error| panic!("{error}"))
        .constraint
}

/// How far a text follows the constraint, token by token: whether it may or must end after the whole text, or the place
/// of the first token that isn't allowed.
fn walk(constraint: &Constraint, text: &str) -> String {
    let mut walk = constraint.begin();
    let mut done = 0;
    for token in SimTokenizer.tokenize(text, Bos::Omit) {
        match walk.ahead() {
            Next::Allowed(allowed) if bit(allowed, token) => {}
            Next::Allowed(_) => return format!("not at {done}"),
            other => return format!("{other:?} at {done}"),
        }
        let mut bytes = Vec::new();
        SimTokenizer.token_bytes(token, &mut bytes);
        done += bytes.len();
        walk.advance(token, &mut PromptMasks);
    }
    match walk.ahead() {
        Next::Allowed(allowed) if bit(allowed, END) => "may end".to_owned(),
        Next::Allowed(_) => "goes on".to_owned(),
        Next::End => "ends".to_owned(),
        other => format!("{other:?}"),
    }
}

fn bit(words: &[u32], token: Token) -> bool {
    words[token as usize / 32] >> (token % 32) & 1 == 1
}

#[test]
fn a_text_follows_its_grammar() {
    let constraints = constraints();
    let check = |grammar: &Grammar, text: &str, expected: &str| {
        let constraint = constraints
            .compile(grammar, &Cancel::default())
            .unwrap()
            .constraint;
        assert_eq!(walk(&constraint, text), expected, "{text} of {grammar:?}");
    };
    let object = Grammar::json_object();
    check(&object, "", "goes on");
    check(&object, "{}", "ends");
    check(&object, "[]", "not at 0");
    check(&object, " {}", "not at 0");
    check(
        &object,
        r#"{"ü🙂": [1, -2.5e3, true, null, "\n"], "b": {}}"#,
        "ends",
    );
    check(&object, r#"{"a": 01"#, "not at 7");
    check(&object, r#"{"a" 1"#, "not at 5");
    // Few blanks are allowed between parts, and a name has one spelling.
    check(&object, "{\n  \"a\" :\n 1\n}", "ends");
    check(&object, "{  ", "not at 2");
    check(&object, "{\n\n", "not at 2");
    check(&object, r#"{"\u0061"#, "not at 3");

    let schema = Grammar::json_schema(&json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "a form",
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 3, "description": "short" },
            "size": { "enum": ["small", "large", 3] },
            "count": { "type": "integer", "minimum": 1, "maximum": 20 },
            "price": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "minItems": 1, "maxItems": 2 },
        },
        "required": ["title", "count"],
        "additionalProperties": false,
        "$defs": { "tag": { "type": "string", "pattern": "^[a-z]+$" } },
    }));
    check(&schema, r#"{"title":"abc","count":20}"#, "ends");
    check(
        &schema,
        r#"{"title":"","size":"large","count":1,"price":0.25,"tags":["a","b"]}"#,
        "ends",
    );
    check(&schema, r#"{"title":"abcd"#, "not at 13");
    check(&schema, r#"{"title":"üüü"#, "goes on");
    check(&schema, r#"{"title":"a","count":21"#, "not at 22");
    check(&schema, r#"{"title":"a","count":0"#, "not at 21");
    check(&schema, r#"{"title":"a"}"#, "not at 12");
    check(&schema, r#"{"count""#, "not at 2");
    check(&schema, r#"{"title":"a","size":"medium"#, "not at 21");
    check(
        &schema,
        r#"{"title":"a","size":3,"count":1,"price":1.1"#,
        "not at 42",
    );
    check(
        &schema,
        r#"{"title":"a","count":1,"tags":["a","b","c""#,
        "not at 38",
    );
    check(&schema, r#"{"title":"a","count":1,"tags":[]"#, "not at 31");
    check(&schema, r#"{"title":"a","count":1,"other":1"#, "not at 24");

    let number = Grammar::json_schema(&json!({ "type": "integer", "multipleOf": 5 }));
    check(&number, "1", "goes on");
    check(&number, "15", "may end");
    let tree = json!({ "type": "array", "items": { "$ref": "#" } });
    check(&Grammar::json_schema(&tree), "[[],[[]]]", "ends");
    let one_of = json!({ "oneOf": [{ "type": "string" }, { "type": "null" }] });
    check(&Grammar::json_schema(&one_of), "null", "ends");

    let schema = json!({ "type": "object", "properties": { "a": { "const": 1 } }, "required": ["a"],
        "additionalProperties": false });
    let call = Grammar(Part::Sequence(vec![
        Part::literal("call "),
        Part::Json(schema.into()),
    ]));
    check(&call, "call {\"a\":1}", "ends");
    check(&call, "call {\"a\":  ", "not at 11");
    // A special token is matched by its id, not by text.
    let parts = vec![Part::literal("a"), Part::Token(0), Part::literal("b")];
    let mut walk = compile(&Grammar(Part::Sequence(parts))).begin();
    for token in SimTokenizer.tokenize("a<|bos|>b", Bos::Omit) {
        assert!(matches!(walk.ahead(), Next::Allowed(allowed) if bit(allowed, token)));
        walk.advance(token, &mut PromptMasks);
    }
    assert_eq!(walk.ahead(), Next::End);
}

/// [`SimTokenizer`] with a second token that ends a text.
#[derive(Debug)]
struct TwoEnds;

impl Tokenizer for TwoEnds {
    fn vocabulary(&self) -> u32 {
        SimTokenizer.vocabulary()
    }
    fn specials(&self) -> &Specials {
        SimTokenizer.specials()
    }
    fn encode(&self, text: &str, names: Names<'_>, bos: Bos) -> Encoded {
        SimTokenizer.encode(text, names, bos)
    }
    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>) {
        SimTokenizer.token_bytes(token, bytes);
    }
    fn is_end(&self, token: Token) -> bool {
        token <= END
    }
}

#[test]
fn every_end_is_allowed_where_the_grammar_may_end() {
    let constraints = Constraints::new(Arc::new(TwoEnds));
    let number = Grammar::json_schema(&json!({ "type": "integer" }));
    let mut walk = constraints
        .compile(&number, &Cancel::default())
        .unwrap()
        .constraint
        .begin();
    let mut ends = |expected: bool| match walk.ahead() {
        Next::Allowed(allowed) => {
            assert_eq!((bit(allowed, 0), bit(allowed, 1)), (expected, expected));
            walk.advance(SimTokenizer.tokenize("7", Bos::Omit)[0], &mut PromptMasks);
        }
        other => panic!("{other:?}"),
    };
    ends(false);
    ends(true);
    ends(true);
}

#[test]
fn few_grammars_are_kept_and_what_breaks_in_one_request_stays_there() {
    let constraints = constraints();
    let grammar = |i: usize| Grammar::json_schema(&json!({ "const": i }));
    for i in 0..GRAMMARS_KEPT + 3 {
        constraints
            .compile(&grammar(i), &Cancel::default())
            .unwrap();
        constraints
            .compile(&grammar(0), &Cancel::default())
            .unwrap();
    }
    let kept = constraints.lock();
    assert_eq!(kept.len(), GRAMMARS_KEPT);
    assert!(kept.iter().any(|(kept, _)| *kept == grammar(0)));
    assert!(!kept.iter().any(|(kept, _)| *kept == grammar(1)));
    drop(kept);

    let mut broken = constraints.kept(&grammar(0)).unwrap().constraint.begin();
    broken.advance(END, &mut PromptMasks);
    assert!(matches!(broken.ahead(), Next::Failed(_)));
    assert_eq!(
        walk(&constraints.kept(&grammar(0)).unwrap().constraint, "0"),
        "ends"
    );
}

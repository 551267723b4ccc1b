//! JSON that is accepted as a request, and JSON that is refused.

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_api::completion::Prompts;
use weir_api::{Integer, LogitBias, Stop, chat, completion};

/// Parses `body` as a chat request and compares the named field's debug text, or the error.
fn check<T: std::fmt::Debug>(rows: &[(&str, &str)], field: impl Fn(chat::Request) -> T) {
    for (body, expected) in rows {
        let read = match serde_json::from_str::<chat::Request>(body) {
            Ok(request) => format!("{:?}", field(request)),
            Err(error) => error.to_string(),
        };
        assert!(
            read.starts_with(expected),
            "{body}\n gave {read}\n  not {expected}"
        );
    }
}

#[test]
fn integers_are_whole_numbers() {
    check(
        &[
            (r#"{"seed": 7}"#, "Some(Integer(7))"),
            (
                r#"{"seed": -9223372036854775808}"#,
                "Some(Integer(-9223372036854775808))",
            ),
            (
                r#"{"seed": 9223372036854775807}"#,
                "Some(Integer(9223372036854775807))",
            ),
            (
                r#"{"seed": 9223372036854775808}"#,
                "9223372036854775808 is too large",
            ),
            (r#"{"seed": 2.0}"#, "Some(Integer(2))"),
            (
                r#"{"seed": 1.5}"#,
                "expected an integer, but 1.5 is not whole",
            ),
            (
                r#"{"seed": 1e300}"#,
                "expected an integer, but 1e300 is out of range",
            ),
            (
                r#"{"seed": 99999999999999999999}"#,
                "expected an integer, but 99999999999999999999 is out of range",
            ),
            (
                r#"{"seed": -99999999999999999999}"#,
                "expected an integer, but -99999999999999999999 is out of range",
            ),
            (
                r#"{"seed": "5"}"#,
                "invalid type: string \"5\", expected an integer",
            ),
            (
                r#"{"seed": true}"#,
                "invalid type: boolean `true`, expected an integer",
            ),
            (r#"{"seed": NaN}"#, "expected value"),
            (r#"{"seed": 1e999}"#, "number out of range"),
            (r#"{"seed": null}"#, "None"),
            ("{}", "None"),
        ],
        |request| request.sampling.seed,
    );
}

#[test]
fn objects_are_lenient_about_what_is_not_theirs() {
    check(
        &[
            (r#"{"model": "a", "model": "b"}"#, "Some(\"b\")"),
            (r#"{"model": "a", "model": null}"#, "None"),
            (
                r#"{"model": "a", "unknown": [[[{}]]], "user": 5}"#,
                "Some(\"a\")",
            ),
            (
                r#"{"model": 5}"#,
                "invalid type: integer `5`, expected a string",
            ),
            ("[]", "invalid type: sequence, expected an object"),
            ("null", "invalid type: null, expected an object"),
            ("5", "invalid type: integer `5`, expected an object"),
            ("", "EOF while parsing a value"),
            (r#"{"model": "a""#, "EOF while parsing an object"),
            (r#"{"model": "a"} x"#, "trailing characters"),
        ],
        |request| request.model,
    );
}

#[test]
fn stop_is_a_string_or_several() {
    let of = |strings: &[&str]| {
        format!(
            "{:?}",
            Some(Stop(strings.iter().map(|&s| s.to_owned()).collect()))
        )
    };
    check(
        &[
            (r#"{"stop": "a"}"#, &of(&["a"])),
            (r#"{"stop": ["a", ""]}"#, &of(&["a", ""])),
            (r#"{"stop": []}"#, &of(&[])),
            (r#"{"stop": null}"#, "None"),
            (
                r#"{"stop": 5}"#,
                "invalid type: integer `5`, expected a string or an array of strings",
            ),
            (
                r#"{"stop": ["a", 5]}"#,
                "invalid type: integer `5`, expected a string",
            ),
            (
                r#"{"stop": ["a", null]}"#,
                "invalid type: null, expected a string",
            ),
        ],
        |request| request.stop,
    );
    let many = json!({"stop": vec!["a"; 65]}).to_string();
    check(&[(&many, "too many stop strings")], |request| request.stop);
}

#[test]
fn biases_are_numbers_or_spell_them() {
    let of = |bias: f64| format!("{:?}", Some(LogitBias([("5".to_owned(), bias)].into())));
    check(
        &[
            (r#"{"logit_bias": {"5": 1}}"#, &of(1.0)),
            (r#"{"logit_bias": {"5": -1.5}}"#, &of(-1.5)),
            (r#"{"logit_bias": {"5": "-100"}}"#, &of(-100.0)),
            (r#"{"logit_bias": {"5": " 2.5 "}}"#, &of(2.5)),
            (r#"{"logit_bias": {"5": 1, "5": 2}}"#, &of(2.0)),
            (
                r#"{"logit_bias": {"5": "inf"}}"#,
                "invalid value: string \"inf\", expected a number",
            ),
            (
                r#"{"logit_bias": {"5": "x"}}"#,
                "invalid value: string \"x\", expected a number",
            ),
            (
                r#"{"logit_bias": {"5": true}}"#,
                "invalid type: boolean `true`, expected a number",
            ),
            (
                r#"{"logit_bias": [1]}"#,
                "invalid type: sequence, expected an object of token ids and numbers",
            ),
        ],
        |request| request.sampling.logit_bias,
    );
}

#[test]
fn messages_have_roles_and_contents() {
    let one = |message: &str| format!(r#"{{"messages": [{message}]}}"#);
    let rows = [
        (
            r#"{"role": "user", "content": "a"}"#,
            r#"Some(List([Message { role: Some(User), content: Some(Text("a"))"#,
        ),
        (
            r#"{"role": "user", "content": [{"type": "text", "text": "a"}]}"#,
            r#"Some(List([Message { role: Some(User), content: Some(Parts([Text("a")]))"#,
        ),
        (
            r#"{"role": "user", "content": [{"type": "image_url"}]}"#,
            r#"Some(List([Message { role: Some(User), content: Some(Parts([Image]))"#,
        ),
        (
            r#"{"role": "assistant", "content": null}"#,
            "Some(List([Message { role: Some(Assistant), content: None",
        ),
        (
            r#"{"role": "wizard"}"#,
            "role must be one of system, developer, user, assistant, tool",
        ),
        (
            r#"{"role": {"user": null}}"#,
            "invalid type: map, expected a string",
        ),
        (
            r#"{"content": 5}"#,
            "invalid type: integer `5`, expected a string, an array of parts or null",
        ),
        (r#"{"content": [{}]}"#, "a part needs a type"),
        (
            r#"{"content": [{"type": "text"}]}"#,
            "a part of type text needs a text",
        ),
        (
            r#"{"content": [{"type": "smell"}]}"#,
            "a part's type must be one of",
        ),
        (
            r#"{"tool_calls": [{"id": "a"}]}"#,
            "a tool call needs a function",
        ),
        (
            r#"{"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}"#,
            "invalid type: map, expected a string",
        ),
        ("null", "invalid type: null, expected an object"),
    ];
    for (message, expected) in rows {
        check(&[(&one(message), expected)], |request| request.messages);
    }
    let many = json!({"messages": vec![json!({}); chat::MESSAGES_MAX + 1]}).to_string();
    check(&[(&many, "at most 4096 entries are allowed")], |request| {
        request.messages
    });
}

#[test]
fn prompts_have_four_forms() {
    let texts = |texts: &[&str]| {
        Ok(Prompts::Texts(
            texts.iter().map(|&text| text.to_owned()).collect(),
        ))
    };
    let tokens = |prompts: &[&[u32]]| {
        Ok(Prompts::Tokens(
            prompts.iter().map(|tokens| tokens.to_vec()).collect(),
        ))
    };
    let rows = [
        (json!("a"), texts(&["a"])),
        (json!(["a", "b"]), texts(&["a", "b"])),
        (json!([]), texts(&[])),
        (json!([1, 2]), tokens(&[&[1, 2]])),
        (json!([[1, 2], [3]]), tokens(&[&[1, 2], &[3]])),
        (json!([[]]), tokens(&[&[]])),
        (json!([-1]), Err("-1 is not a token id")),
        (
            json!([1, -1]),
            Err("invalid value: integer `-1`, expected u32"),
        ),
        (json!([4294967296_u64]), Err("4294967296 is not a token id")),
        (
            json!([1, "a"]),
            Err("invalid type: string \"a\", expected u32"),
        ),
        (
            json!(["a", 1]),
            Err("invalid type: integer `1`, expected a string"),
        ),
        (
            json!([1.5]),
            Err("invalid type: floating point `1.5`, expected a string, a token id"),
        ),
        (
            json!([["a"]]),
            Err("invalid type: string \"a\", expected u32"),
        ),
        (
            json!([null]),
            Err("invalid type: null, expected a string, a token id"),
        ),
        (
            json!({}),
            Err("invalid type: map, expected a string, an array of strings"),
        ),
        (
            json!(vec!["a"; 1025]),
            Err("at most 1024 of them are allowed"),
        ),
    ];
    for (prompt, expected) in rows {
        let body = json!({ "prompt": prompt }).to_string();
        let read = serde_json::from_str::<completion::Request>(&body);
        match (read, expected) {
            (Ok(request), Ok(prompts)) => assert_eq!(request.prompt, Some(prompts), "{body}"),
            (Err(error), Err(expected)) => {
                let error = error.to_string();
                assert!(
                    error.starts_with(expected),
                    "{body}\n gave {error}\n  not {expected}"
                );
            }
            (read, expected) => panic!("{body}\n gave {read:?}\n  not {expected:?}"),
        }
    }
}

#[test]
fn an_integer_of_a_completion_is_read_as_one_of_a_chat() {
    let request: completion::Request =
        serde_json::from_str(r#"{"logprobs": 5, "echo": true, "suffix": "x"}"#).unwrap();
    assert_eq!(
        (request.logprobs, request.echo, request.suffix),
        (Some(Integer(5)), Some(true), Some("x".to_owned()))
    );
}

/// Random JSON with the field names of requests.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop_oneof![Just("text"), Just("user"), Just("function"), Just("none")]
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("model"),
        Just("messages"),
        Just("prompt"),
        Just("role"),
        Just("content"),
        Just("type"),
        Just("text"),
        Just("stop"),
        Just("logit_bias"),
        Just("stream_options"),
        Just("tools"),
        Just("tool_choice"),
        Just("n"),
        Just("tool_calls"),
        Just("function"),
        Just("temperature"),
        Just("seed"),
        Just("response_format"),
        Just("5"),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        let body = value.to_string();
        let chat = serde_json::from_str::<chat::Request>(&body);
        let completion = serde_json::from_str::<completion::Request>(&body);
        if !value.is_object() {
            prop_assert!(chat.is_err() && completion.is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = serde_json::from_slice::<chat::Request>(&bytes);
        let _ = serde_json::from_slice::<completion::Request>(&bytes);
    }
}

//! Schemas in requests: the answer lists what isn't enforced, work on schemas is limited, and numbers keep all digits.

use serde_json::{Value, json};
use weir_testkit::TestApp;

use crate::{chat, completion};

const CHAT: &str = "/v1/chat/completions";
const RELAXED: &str = "x-weir-schema-relaxed";

fn format(schema: Value, strict: bool) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}})
}

/// A schema of which some parts can't be enforced.
fn partly() -> Value {
    json!({"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": true}, "c": {"pattern": "\\bx"}}, "minimun": 1})
}

#[tokio::test]
async fn what_is_not_enforced_is_told_in_a_header() {
    let app = TestApp::new().await;
    let place = "/response_format/json_schema/schema/properties";
    let expected = format!("{place}/a~1b/uniqueItems, {place}/c/pattern");
    let relaxed = |answer: &weir_testkit::Answer| {
        let mut places: Vec<_> = answer
            .header(RELAXED)
            .split(", ")
            .map(str::to_owned)
            .collect();
        places.sort();
        places.join(", ")
    };
    for stream in [false, true] {
        let body = json!({"response_format": format(partly(), false), "stream": stream});
        for (path, body) in [
            (CHAT, chat(body.clone())),
            ("/v1/completions", completion(body)),
        ] {
            let answer = app.post(path, body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(relaxed(&answer), expected, "{path} {stream}");
        }
    }
    let counted = app
        .post(
            "/v1/count",
            chat(json!({"response_format": format(partly(), false)})),
        )
        .await;
    assert_eq!(relaxed(&counted), expected);
    let whole = app
        .post(
            CHAT,
            chat(json!({"response_format": format(json!({"type": "object"}), true)})),
        )
        .await;
    assert_eq!((whole.status.as_u16(), &*relaxed(&whole)), (200, ""));
    // A tool's schema is listed in the same way, by its place in the request.
    let parameters = json!({"properties": {"a": {"not": {"multipleOf": 3}}}});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
    let called = app
        .post(
            CHAT,
            chat(json!({"tools": [tool], "tool_choice": "required"})),
        )
        .await;
    assert_eq!(called.status, 200, "{}", called.text());
    assert!(relaxed(&called).starts_with("/tools/0/function/parameters/properties/a/not"));
}

#[tokio::test]
async fn with_strict_it_is_refused_and_says_where() {
    let app = TestApp::new().await;
    let answer = app
        .post(
            CHAT,
            chat(json!({"response_format": format(partly(), true)})),
        )
        .await;
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(error["param"], "response_format.json_schema.schema");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("/properties/")
            && message.contains(" can't be enforced, and the schema is strict"),
        "{message}"
    );
}

/// The text of an answer with a constrained format.
async fn text(app: &TestApp, fields: Value) -> String {
    let answer = app.post("/v1/completions", completion(fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn numbers_are_exact_from_the_body_to_the_answer() {
    let app = TestApp::new().await;
    for number in [
        "1234567890123456789",
        "9007199254740993",
        "123456789.12345679",
        "123456789012345678901234567890",
        "0.12345678901234567890123",
    ] {
        let body = completion(
            json!({"response_format": format(json!({"const": "NUMBER"}), true), "max_tokens": 64}),
        );
        let answer = app
            .post("/v1/completions", body.replace("\"NUMBER\"", number))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["choices"][0]["text"], number);
    }
}

#[tokio::test]
async fn expressions_choices_and_grammars_are_kept() {
    let app = TestApp::new().await;
    let outputs = |outputs: Value| json!({"structured_outputs": outputs, "max_tokens": 64});
    let one = text(
        &app,
        outputs(json!({"choice": ["over the weir", "under it"]})),
    )
    .await;
    assert!(["over the weir", "under it"].contains(&&*one), "{one}");
    assert_eq!(text(&app, outputs(json!({"regex": "x{3}"}))).await, "xxx");
    assert_eq!(
        text(
            &app,
            outputs(json!({"grammar": "root ::= \"a\" b\nb ::= \"b\""}))
        )
        .await,
        "ab"
    );
    assert_eq!(
        text(
            &app,
            outputs(json!({"grammar": "start: \"a\" B\nB: \"b\""}))
        )
        .await,
        "ab"
    );
    let document = text(&app, outputs(json!({"json": "{\"const\": [1]}"}))).await;
    assert_eq!(
        serde_json::from_str::<Value>(&document).unwrap(),
        json!([1])
    );
    assert_eq!(
        text(
            &app,
            json!({"guided_json": {"const": null}, "max_tokens": 64})
        )
        .await,
        "null"
    );
    for (outputs, param) in [
        (json!({"regex": "("}), "structured_outputs.regex"),
        (
            json!({"grammar": "root ::= x"}),
            "structured_outputs.grammar",
        ),
        (json!({"json": "["}), "structured_outputs.json"),
        (json!({"json": {"enum": []}}), "structured_outputs.json"),
    ] {
        let answer = app
            .post(
                "/v1/completions",
                completion(json!({"structured_outputs": outputs})),
            )
            .await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.json()["error"]["param"].as_str()
            ),
            (400, Some(param)),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn compiling_has_a_limit_for_each_account() {
    let app = TestApp::new().await;
    // Three hundred overlapping branches, each of which is compared with all others.
    let heavy = |i: usize| {
        let branches: Vec<_> = (0..300)
            .map(|least| json!({"minLength": least + i}))
            .collect();
        chat(json!({"response_format": format(json!({"oneOf": branches}), false)}))
    };
    let mut refused = None;
    for i in 0..200 {
        let answer = app.post("/v1/count", heavy(i)).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("heavy schemas have a limit");
    assert_eq!(
        (refused.status.as_u16(), refused.json()["reason"].as_str()),
        (429, Some("RATE_LIMIT_EXCEEDED"))
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Requests without a schema are still served, and so are those with a schema that is compiled already.
    assert_eq!(app.post("/v1/count", chat(json!({}))).await.status, 200);
}

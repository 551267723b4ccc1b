//! The expected texts were made by Python's jinja2, set up as in `transformers`, from the same input.

use serde_json::json;
use weir_engine::request::{Message, Role, ToolCall};

use super::*;

const SMOLLM2: &str = include_str!("../../../tests/templates/smollm2.jinja");
const ALTERNATING: &str = include_str!("../../../tests/fixtures/alternating.jinja");
const FEATURES: &str = include_str!("../../../tests/fixtures/features.jinja");

fn message(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

fn user(content: &str) -> Message {
    message(Role::User, content)
}

fn render(source: &str, messages: &[Message]) -> Result<String, Invalid> {
    let template = ChatTemplate::parse(source, "<s>", "</s>").unwrap();
    template.render(
        &messages.to_vec().into(),
        "2026-11-22T13:05:09Z".parse().unwrap(),
    )
}

#[track_caller]
fn check(source: &str, messages: &[Message], expected: &str) {
    assert_eq!(render(source, messages).unwrap(), expected, "{messages:?}");
}

#[track_caller]
fn check_refused(source: &str, messages: &[Message], expected: &str) {
    assert_eq!(
        render(source, messages),
        Err(Invalid::new("messages", expected)),
        "{messages:?}"
    );
}

#[test]
fn smollm2() {
    check(
        SMOLLM2,
        &[user("Hi")],
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    );
    let conversation = [
        message(Role::System, "Be <brief> & \"kind\"."),
        user("Grüße 日本 😀\n"),
        message(Role::Assistant, " ok "),
        user(""),
    ];
    let expected = "<|im_start|>system\nBe <brief> & \"kind\".<|im_end|>\n\
         <|im_start|>user\nGrüße 日本 😀\n<|im_end|>\n<|im_start|>assistant\n ok <|im_end|>\n\
         <|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n";
    check(SMOLLM2, &conversation, expected);
    // This template has no role `developer` and concatenates content: a developer message or missing content is no error.
    let mut unusual = conversation;
    unusual[0].role = Role::Developer;
    unusual[3].content = None;
    check(SMOLLM2, &unusual, expected);
}

#[test]
fn a_template_that_wants_turns_refuses_others() {
    let (system, answer) = (message(Role::System, "S"), message(Role::Assistant, "Two"));
    check(
        ALTERNATING,
        &[system, user("One")],
        "<s>[INST] S\n\nOne [/INST]",
    );
    check(
        ALTERNATING,
        &[user("One"), answer.clone(), user("Three")],
        "<s>[INST] One [/INST] Two</s>[INST] Three [/INST]",
    );
    let alternate = "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...";
    check_refused(ALTERNATING, &[answer], alternate);
    check_refused(ALTERNATING, &[user("1"), user("2")], alternate);
    let tool = message(Role::Tool, "42");
    check_refused(
        ALTERNATING,
        &[user("1"), tool],
        "Only user, system and assistant roles are supported!",
    );
    let in_macro = "{% macro deny() %}{{ raise_exception('No ' ~ 1) }}{% endmacro %}{{ deny() }}";
    check_refused(in_macro, &[user("1")], "No 1");
    let repeats = "{{ raise_exception(messages[0].content) }}";
    check_refused(repeats, &[user(&"é".repeat(100_000))], &"é".repeat(500));
}

#[test]
fn what_templates_of_the_field_use() {
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "f".to_owned(),
        arguments: r#"{"b":1,"a":["<x>",true,null,1.5,"é'\n"],"e":{},"l":[]}"#.to_owned(),
    };
    let conversation = [
        message(Role::System, "  Sys \n"),
        Message {
            name: Some("Ann".to_owned()),
            ..user("a|b")
        },
        Message {
            tool_calls: vec![call],
            content: None,
            ..message(Role::Assistant, "")
        },
        Message {
            tool_call_id: Some("c1".to_owned()),
            ..message(Role::Tool, "42")
        },
    ];
    let expected = "<s>Today: 22 Nov 2026, 13:05:09 Sunday 326\n<|System|> Sys\n<|User:Ann|> a / b\n\
        <|Assistant|> \nf.b=1\nf.a=[\"<x>\", true, null, 1.5, \"é'\\n\"]\nf.e={}\nf.l=[]\n\
        {\"id\": \"c1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \
        {\"b\": 1, \"a\": [\"<x>\", true, null, 1.5, \"é'\\n\"], \"e\": {}, \"l\": []}}}\n\
        {\n  \"name\": \"f\",\n  \"arguments\": {\n    \"b\": 1,\n    \"a\": [\n      \"<x>\",\n      true,\n      \
        null,\n      1.5,\n      \"é'\\n\"\n    ],\n    \"e\": {},\n    \"l\": []\n  }\n}\n\
        {\"a\":[\"<x>\",true,null,1.5,\"\\u00e9'\\n\"],\"b\":1,\"e\":{},\"l\":[]}\n\
        <|Tool|> 42\nc1: 42\n3 turns, last tool</s>\n";
    check(FEATURES, &conversation, expected);
}

#[test]
fn values_are_as_in_python() {
    let check = |source: &str, expected: &str| check(source, &[user("Hi")], expected);
    check(
        "{{ none }} {{ true }} {{ false }} {{ 1.0 }}",
        "None True False 1.0",
    );
    check(
        "{{ 'x' if messages[0].name else 'y' }}{{ messages[0].name is defined }}",
        "yFalse",
    );
    check(
        "{{ 7 // 2 }} {{ 7 / 2 }} {{ 'abc'[::-1] }} {{ 'x' * 3 }}",
        "3 3.5 cba xxx",
    );
    check("{{ 'a-b'.split('-')|last }}", "b");
    check(
        "{{ messages|tojson }}",
        r#"[{"role": "user", "content": "Hi"}]"#,
    );
    check(
        "{{ {'b': 1, 'a': []}|tojson(indent=2) }}",
        "{\n  \"b\": 1,\n  \"a\": []\n}",
    );
    check(
        "{{ '😀\u{7f}'|tojson(ensure_ascii=true) }}",
        "\"\\ud83d\\ude00\\u007f\"",
    );
    check(
        "{% generation %}a{% endgeneration %}\n{%- generation -%} b {%- endgeneration -%}",
        "ab",
    );
    check("a\n", "a");
    check("a\r\n{% if true %}\r\nb\r{% endif %}", "a\nb\n");
    check(
        "{{ [1e-7, 1e22, 0.0001, 1e15, -2.5] }} {{ 1e-7 }} {{ 1e-7|string }} {{ [1e16]|tojson }}",
        "[1e-07, 1e+22, 0.0001, 1000000000000000.0, -2.5] 1e-07 1e-07 [1e+16]",
    );
    check(
        "{{ ['\u{1}\u{2028}é👩\u{200d}', \"'\", none, {'a': (1,)}, ()] }}",
        r#"['\x01\u2028é👩\u200d', "'", None, {'a': (1,)}, ()]"#,
    );
    check(
        "[{{ '\u{1c}\u{85} x \u{1f}'|trim }}{{ '\u{1e}y '.strip() }}{{ 'ab'.rstrip('b') }}]",
        "[xya]",
    );
    check(
        "{{ none is iterable }} {{ 'a' is iterable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is sequence }}",
        "False True True True False",
    );
    check("{{ 'a\nb\n'|indent(2, first=true) }}]", "  a\n  b\n]");
}

#[test]
fn content_is_none_only_for_templates_that_then_say_more() {
    let call = ToolCall {
        id: "c1".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
    };
    let messages = |content: Option<&str>| {
        let called = Message {
            content: content.map(str::to_owned),
            tool_calls: vec![call.clone()],
            ..message(Role::Assistant, "")
        };
        [user("Hi"), called]
    };
    let concatenates = "{% for m in messages %}[{{ '' + m.content }}]{% endfor %}";
    let chooses = "{% for m in messages %}[{% if m.content is none %}{{ m.tool_calls[0].function.arguments|tojson }}\
        {% else %}{{ m.content }}{% endif %}]{% endfor %}";
    check(concatenates, &messages(None), "[Hi][]");
    check(chooses, &messages(None), "[Hi][{}]");
    check(chooses, &messages(Some("")), "[Hi][{}]");
    check(chooses, &messages(Some("x")), "[Hi][x]");
}

#[test]
fn developer_is_system_only_for_templates_without_it() {
    let check = |source: &str, expected: &str| {
        let source = format!("{{% for m in messages %}}{source}{{% endfor %}}");
        check(&source, &[message(Role::Developer, "x")], expected);
    };
    // Writing whatever role a message has doesn't mean that the model has learned the role.
    check("{{ m.role }}:{{ m.content }}", "system:x");
    check(
        "{% if m.role != 'developer' %}{{ m.role }}:{{ m.content }}{% endif %}",
        "system:x",
    );
    check(
        "{{ 'dev' if m.role == 'developer' else m.role }}:{{ m.content }}",
        "dev:x",
    );
    check(
        "{% if m.role not in ['developer', 'user'] %}{{ raise_exception('no') }}{% endif %}{{ m.role }}:{{ m.content }}",
        "developer:x",
    );
}

#[test]
fn ids_of_calls_are_as_short_as_the_template_demands() {
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: "{\"a\":1}".to_owned(),
    };
    let messages = [
        Message {
            tool_calls: vec![
                call("call_0123456789"),
                call("call_012345678"),
                call("abcDEF123"),
            ],
            ..message(Role::Assistant, "")
        },
        Message {
            tool_call_id: Some("call_0123456789".to_owned()),
            ..message(Role::Tool, "r")
        },
    ];
    let ids = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.id }} {{ c.function.arguments|tojson }} {% endfor %}\
        {{ m.content }}{{ m.tool_call_id }}{% endfor %}";
    let strict = format!(
        "{{% for m in messages %}}{{% for c in m.tool_calls %}}{{% if c.id|length != 9 %}}{{{{ raise_exception('ids') }}}}\
         {{% endif %}}{{% endfor %}}{{% endfor %}}{ids}"
    );
    let args = "{\"a\": 1}";
    check(
        ids,
        &messages,
        &format!("call_0123456789 {args} call_012345678 {args} abcDEF123 {args} rcall_0123456789"),
    );
    let short = render(&strict, &messages).unwrap();
    let words: Vec<&str> = short.split(' ').collect();
    assert_eq!(words[6], "abcDEF123", "{short}");
    assert_ne!(words[0], words[3], "{short}");
    assert!(short.ends_with(&format!("r{}", words[0])), "{short}");
}

#[test]
fn a_template_that_takes_parts_only_gets_them() {
    check(
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}",
        &[user("Hi")],
        "Hi",
    );
}

#[test]
fn only_switches_reach_a_template() {
    let source =
        "{{ messages[0].content }} {{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}";
    let template = ChatTemplate::parse(source, "", "").unwrap();
    let render = |kwargs: serde_json::Value| {
        let conversation = Conversation {
            template_kwargs: serde_json::from_value(kwargs).unwrap(),
            ..vec![user("Hi")].into()
        };
        let rendered = template.render(&conversation, Timestamp::UNIX_EPOCH);
        rendered.map_err(|invalid| (invalid.param, invalid.message))
    };
    let ok = |kwargs, expected: &str| assert_eq!(render(kwargs).as_deref(), Ok(expected));
    ok(json!({}), "Hi   ");
    ok(json!({"enable_thinking": false}), "Hi False False ");
    ok(
        json!({"enable_thinking": true, "thinking": false}),
        "Hi True False ",
    );
    ok(
        json!({"enable_thinking": null, "thinking": 1, "reasoning_effort": "low"}),
        "Hi  1 low",
    );
    let refused = |kwargs, param: &str, part: &str| {
        let (found, message) = render(kwargs).unwrap_err();
        assert_eq!(found, param);
        assert!(message.contains(part), "{message}");
    };
    for name in [
        "messages",
        "tools",
        "bos_token",
        "add_generation_prompt",
        "documents",
        "strftime_now",
        "x",
        "",
    ] {
        refused(
            json!({name: true}),
            "chat_template_kwargs",
            "may only have clear_thinking, enable_thinking",
        );
    }
    for value in [json!([]), json!({}), json!("x".repeat(33))] {
        let part =
            "reasoning_effort must be a boolean, a number, or a text of at most 32 characters";
        refused(
            json!({"reasoning_effort": value}),
            "chat_template_kwargs.reasoning_effort",
            part,
        );
    }
}

#[test]
fn arguments_that_are_no_json_stay_text() {
    let call = |arguments: &str| ToolCall {
        id: String::new(),
        name: String::new(),
        arguments: arguments.to_owned(),
    };
    let message = Message {
        tool_calls: vec![call("{broken"), call("[1]")],
        ..message(Role::Assistant, "")
    };
    check(
        "{% for c in messages[0].tool_calls %}{{ c.function.arguments|tojson }}{% endfor %}",
        &[message],
        "\"{broken\"\"[1]\"",
    );
}

#[test]
fn a_template_that_is_none_is_reported_when_it_is_loaded() {
    let check = |source: &str, expected: &str| {
        let error = ChatTemplate::parse(source, "", "").unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check("a\n{% if %}", "chat_template:2");
    check("{% for m in messages %}", "syntax error");
    check("{{ messages|foobar }}", "foobar");
    check("{{ foobar() }}", "foobar");
    check("{{ messages[0].content.foobar() }}", "foobar");
}

#[test]
fn a_failing_template_tells_no_internals() {
    let check =
        |source: &str, expected: &str| check_refused(source, &[user("1"), user("2")], expected);
    let failed = "the model's chat template can't render this conversation";
    check("{{ messages[1].a.b }}", failed);
    check("{{ 'x' + none }}", failed);
    check("{{ strftime_now('%!') }}", failed);
    // Values that nest too deeply for the stack aren't written.
    for write in ["{{ n.x }}", "{{ n.x|string }}", "{{ n.x|tojson }}"] {
        let nest = "{% set n = namespace(x=[]) %}{% for i in range(300) %}{% set n.x = [n.x] %}{% endfor %}";
        check(&format!("{nest}{write}"), failed);
    }
    check("{{ 'x'|indent(10000000000) }}", failed);
    // A template that would run forever, or fill the memory, is stopped.
    let too_long = "the conversation is too long for the model's chat template";
    check(
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        too_long,
    );
    check(
        "{% if messages|length > 1 %}{{ 'x' * 10000000000 }}{% endif %}",
        too_long,
    );
}

#[test]
fn a_long_conversation_renders() {
    let long = "word ".repeat(1000);
    let messages: Vec<Message> = (0..1000).map(|_| user(&long)).collect();
    assert!(render(SMOLLM2, &messages).unwrap().len() > 5_000_000);
    assert!(render(FEATURES, &messages).unwrap().len() > 5_000_000);
}

//! The expected texts were made by Python's jinja2, set up as in `transformers`, from the same input.

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
    template.render(messages, "2026-11-22T13:05:09Z".parse().unwrap())
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
    // It has no developer, and concatenates content: neither is an error.
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
fn content_is_none_only_for_templates_that_ask() {
    let check = |source: &str, expected: &str| {
        check(
            source,
            &[Message {
                content: None,
                ..user("")
            }],
            expected,
        );
    };
    check("{{ '[' + messages[0].content + ']' }}", "[]");
    check(
        "{% set tools = none %}{{ '[' + messages[0]['content'] + ']' }}",
        "[]",
    );
    check("{{ messages[0].content is none }}", "True");
    check("{{ messages[0]['content'] is not none }}", "False");
    check("{{ messages[0][\"content\"] == None }}", "True");
}

#[test]
fn developer_is_system_only_for_templates_without_it() {
    let developer = [message(Role::Developer, "x")];
    check("{{ messages[0].role }}", &developer, "system");
    check(
        "{# developer #}{{ messages[0].role }}",
        &developer,
        "developer",
    );
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
        "\"{broken\"[1]",
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
    // What nests too deep for a stack isn't written.
    for write in ["{{ n.x }}", "{{ n.x|string }}", "{{ n.x|tojson }}"] {
        let nest = "{% set n = namespace(x=[]) %}{% for i in range(2000) %}{% set n.x = [n.x] %}{% endfor %}";
        check(&format!("{nest}{write}"), failed);
    }
    check("{{ 'x'|indent(10000000000) }}", failed);
    // One that would run for ever, or fill the memory, ends.
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

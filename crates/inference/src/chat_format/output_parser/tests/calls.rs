//! Tool calls in the formats of the model families.

use super::*;

#[test]
fn hermes() {
    let rules = calling(&HERMES);
    let check = |text: &str, expected: &str| check(&rules, text, expected);
    check("", "");
    check("Just text. ", "Just text. ");
    check("a < b <tool_cal", "a < b <tool_cal");
    check(
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln 🙂\", \"n\": 1.50}}\n</tool_call>",
        "0:weather({\"city\": \"Köln 🙂\", \"n\": 1.50})",
    );
    // Arguments stay as the model wrote them, to the last digit and space.
    check(
        r#"<tool_call>{"name":"weather","arguments":{ "big":12345678901234567890,"s":"\u00e9\ud83d\ude42" }}</tool_call>"#,
        r#"0:weather({ "big":12345678901234567890,"s":"\u00e9\ud83d\ude42" })"#,
    );
    check(
        "Let me see.\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": \"weather\", \"arguments\": {\"deep\": {\"a\": [1, {\"b\": \"}\"}]}}}</tool_call>\nDone.",
        "Let me see.0:now({})1:weather({\"deep\": {\"a\": [1, {\"b\": \"}\"}]}})\nDone.",
    );
    // Arguments before the name, and the closing mark within a string.
    check(
        r#"<tool_call>{"arguments": {"city": "</tool_call>\""}, "id": [1], "name": "weather"}</tool_call>"#,
        r#"0:weather({"city": "</tool_call>\""})"#,
    );
    check(
        r#"<tool_call>{"type": "function", "function": {"name": "now", "arguments": {"x": 1}}}</tool_call>!"#,
        r#"0:now({"x": 1})!"#,
    );
    // Arguments as a string, no arguments, `null`.
    check(
        r#"<tool_call>{"name": "weather", "arguments": "{\"city\": \"K\\u00f6ln\"}"}</tool_call>"#,
        r#"0:weather({"city": "K\u00f6ln"})"#,
    );
    check(r#"<tool_call>{"name": "now"}</tool_call>"#, "0:now({})");
    check(
        r#"<tool_call>{"name": "now", "arguments": null}</tool_call>"#,
        "0:now({})",
    );
    // Two calls in one pair of marks, and a list.
    check(
        "<tool_call>[{\"name\": \"now\"}, {\"name\": \"now\"}]\n{\"name\": \"now\"}</tool_call>",
        "0:now({})1:now({})2:now({})",
    );
}

#[test]
fn what_is_no_call_is_text() {
    let rules = calling(&HERMES);
    for text in [
        "<tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>now</tool_call>",
        "x <tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call> y",
        "<tool_call>{\"name\": \"weathe\"}</tool_call>",
        "<tool_call>{\"name\": \"weather_\"}</tool_call>",
        "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
        "<tool_call>{\"name\": 5}</tool_call>",
        "<tool_call>{name: now}</tool_call>",
        " <tool_call>[[{\"name\": \"now\"}]]</tool_call>",
        "<tool_call>{\"name\": \"no",
        "<tool_call>{\"arguments\": {\"name\": \"now\"",
    ] {
        check(&rules, text, text);
        check_cut(&rules, text, text);
    }
    // An opening mark as text, and then a call.
    check(
        &rules,
        "<tool_call><tool_call>{\"name\": \"now\"}</tool_call>",
        "<tool_call>0:now({})",
    );
    check(
        &rules,
        "<tool_call>{\"name\": \"x\"}</tool_call> <tool_call>{\"name\": \"now\"}</tool_call>",
        "<tool_call>{\"name\": \"x\"}</tool_call>0:now({})",
    );
}

#[test]
fn broken_calls_end() {
    let rules = calling(&HERMES);
    let check = |text: &str, expected: &str| check(&rules, text, expected);
    // Missing brackets.
    check("<tool_call>{\"name\": \"now\"</tool_call>x", "0:now({})x");
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1</tool_call>x",
        "0:now({\"a\": 1)x",
    );
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}</tool_call>x",
        "0:now({\"a\": 1})x",
    );
    // The closing mark is missing, cut off, or another one.
    check(
        "<tool_call>{\"name\": \"now\"} and so on",
        "0:now({})and so on",
    );
    check("<tool_call>{\"name\": \"now\"}</tool_", "0:now({})");
    check(
        "<tool_call>{\"name\": \"now\"}</tool_x",
        "0:now({})</tool_x",
    );
    check(
        "<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": <</tool_call>",
        "0:now({\"a\": <)",
    );
    // If the answer was cut off, nothing is added to what the model wrote.
    check("<tool_call>{\"name\": \"now\"", "0:now({})");
    check_cut(&rules, "<tool_call>{\"name\": \"now\"", "0:now()");
    check_cut(
        &rules,
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"K",
        "0:weather({\"city\": \"K)",
    );
}

#[test]
fn lists_and_bare_calls() {
    let mistral = calling(&MISTRAL_LIST);
    check(
        &mistral,
        "Well.[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}, \"id\": \"a]b\"}, {\"name\": \"weather\", \"arguments\": {\"city\": \"X\"}}]",
        "Well.0:now({})1:weather({\"city\": \"X\"})",
    );
    check(
        &mistral,
        "[TOOL_CALLS][{\"name\": \"x\"}] [1]",
        "[TOOL_CALLS][{\"name\": \"x\"}] [1]",
    );
    let llama = calling(&LLAMA);
    check(
        &llama,
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"X\"}}; {\"name\": \"now\", \"parameters\": {}}",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
    check(
        &llama,
        "<|python_tag|>{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}",
        "0:now({})",
    );
    for text in [
        "{\"answer\": 42}",
        "{\"name\": \"other\"}",
        "[1, 2]",
        "So: {\"name\": \"now\"}",
        "{}",
    ] {
        check(&llama, text, text);
    }
    let granite = calling(&GRANITE);
    check(
        &granite,
        "<|tool_call|>[{\"name\": \"now\", \"arguments\": {}}]<|/tool_call|>",
        "0:now({})",
    );
    check(
        &granite,
        "<tool_call>[{\"name\": \"now\", \"arguments\": {}}]",
        "0:now({})",
    );
}

#[test]
fn named_calls() {
    let mistral = calling(&MISTRAL);
    check(
        &mistral,
        "Hm.\n[TOOL_CALLS]weather[ARGS]{\"city\": \"a[TOOL_CALLS]\"}[TOOL_CALLS]now[CALL_ID]abc123[ARGS]{}",
        "Hm.0:weather({\"city\": \"a[TOOL_CALLS]\"})1:now({})",
    );
    check(
        &mistral,
        "[TOOL_CALLS]weather_of-2{\"x\": 1} ",
        "0:weather_of-2({\"x\": 1})",
    );
    check(
        &mistral,
        "[TOOL_CALLS]other[ARGS]{}",
        "[TOOL_CALLS]other[ARGS]{}",
    );
    check(&mistral, "[TOOL_CALLS]now[ARGS]", "0:now({})");
    check_cut(&mistral, "[TOOL_CALLS]now[ARGS]", "0:now()");
    check(
        &calling(&DEEPSEEK_V3),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"<｜tool▁call▁end｜>\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "0:weather({\"city\": \"<｜tool▁call▁end｜>\"})1:now({})",
    );
    check(
        &calling(&DEEPSEEK_V31),
        "Text<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"X\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Text0:weather({\"city\": \"X\"})",
    );
    let kimi = calling(&KIMI_K2);
    check(
        &kimi,
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"X\"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
    check(
        &kimi,
        "<|tool_call_begin|>now:0",
        "<|tool_call_begin|>now:0",
    );
}

#[test]
fn tagged_calls() {
    let qwen = calling(&QWEN_CODER);
    check(
        &qwen,
        "Sure.\n<tool_call>\n<function=weather>\n<parameter=city>\nNew\n\"York\"\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=deep>\n{\"a\": [1]}\n</parameter>\n<parameter=maybe>\n12\n</parameter>\n<parameter=unit>\n5\n</parameter>\n</function>\n</tool_call>",
        "Sure.0:weather({\"city\": \"New\\n\\\"York\\\"\", \"days\": 3, \"deep\": {\"a\": [1]}, \"maybe\": 12, \"unit\": \"5\"})",
    );
    check(
        &qwen,
        "<tool_call>\n<function=now>\n</function>\n</tool_call>\n",
        "0:now({})",
    );
    check(
        &qwen,
        "<tool_call><function=now></function><function=now></function></tool_call>x",
        "0:now({})1:now({})x",
    );
    check(
        &qwen,
        "<tool_call>\n<function=other>\n",
        "<tool_call>\n<function=other>\n",
    );
    check(
        &qwen,
        "<tool_call><function=weather><parameter=city></parameter><parameter=days>many</parameter><parameter=x>True</parameter>",
        "0:weather({\"city\": \"\", \"days\": \"many\", \"x\": true})",
    );
    check(
        &qwen,
        "<tool_call><function=weather><parameter=city>a\n</para",
        "0:weather({\"city\": \"a\\n</para\"})",
    );
    check_cut(
        &qwen,
        "<tool_call><function=weather><parameter=city>Ab",
        "0:weather({\"city\": \"Ab)",
    );
    check(
        &calling(&GLM),
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Köln\n</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now</tool_call>",
        "0:weather({\"city\": \"Köln\\n\", \"days\": 3})1:now({})",
    );
    check(
        &calling(&MINIMAX),
        "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">X</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>",
        "0:weather({\"city\": \"X\"})1:now({})",
    );
}

#[test]
fn harmony() {
    let rules = |separate| ParseRules {
        harmony: true,
        ..ParseRules {
            calls: calling(&HERMES).calls,
            ..thinking(None, separate)
        }
    };
    let text = "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>final<|message|>So.<|return|>";
    check(&rules(true), text, "‹Why?›So.");
    check(&rules(false), text, "<think>\nWhy?\n</think>\n\nSo.");
    check(
        &rules(true),
        "<|channel|>analysis<|message|>I must<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"X\"}<|call|>",
        "‹I must›0:weather({\"city\": \"X\"})",
    );
    check(
        &rules(true),
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>",
        "0:now({})",
    );
    check(
        &rules(true),
        "<|channel|>commentary to=functions.x<|message|>{}",
        "{}",
    );
    check(&rules(true), "plain <|", "plain <|");
}

#[test]
fn one_call_at_a_time() {
    let mut rules = calling(&HERMES);
    rules.calls.as_mut().unwrap().one_at_a_time = true;
    check(
        &rules,
        "<tool_call>{\"name\": \"now\"}</tool_call><tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1}}</tool_call>x",
        "0:now({})x",
    );
}

//! Tool calls, reasoning, and the request that the engine gets for both.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_engine::request::{Format, Role, Schema, ToolChoice};
use weir_engine::{Channel, Event, FinishReason, Input, Usage};
use weir_testkit::{Scripted, TestApp};

use crate::chat;

const CHAT: &str = "/v1/chat/completions";

fn text(choice: u32, channel: Channel, text: &str) -> Event {
    Event::Text {
        choice,
        channel,
        text: text.to_owned(),
        tokens: 1,
        logprobs: Vec::new(),
        ids: Vec::new(),
    }
}

fn call(choice: u32, call: u32, name: &str) -> Event {
    let name = name.to_owned();
    Event::Call { choice, call, name }
}

fn finish(choice: u32, reason: FinishReason) -> Event {
    Event::Finished { choice, reason }
}

/// Choice 1 comes first, with reasoning and a tool call; choice 0 has content and two tool calls.
fn script() -> Vec<Event> {
    vec![
        text(1, Channel::Reasoning, "hm"),
        text(0, Channel::Content, "Look:"),
        call(0, 0, "f"),
        text(0, Channel::Call(0), "{\"a\":"),
        call(1, 0, "g"),
        text(1, Channel::Call(0), "{}"),
        text(0, Channel::Call(0), "1}"),
        call(0, 1, "f"),
        text(0, Channel::Call(1), "{}"),
        finish(1, FinishReason::ToolCalls),
        finish(0, FinishReason::ToolCalls),
        Event::Done(Usage {
            prompt: 1,
            completion: 7,
            reasoning: 1,
            ..Usage::default()
        }),
    ]
}

fn asked(fields: Value) -> String {
    let mut body = json!({
        "n": 2,
        "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}}],
    });
    for (field, value) in fields.as_object().unwrap() {
        body[field] = value.clone();
    }
    chat(body)
}

/// Replaces the ids of tool calls, which differ between answers, by `call_…` with the numbers of the choice and the
/// call.
fn without_ids(mut value: Value) -> Value {
    match &mut value {
        Value::Object(object) => {
            for (name, inner) in object.iter_mut() {
                let id = inner
                    .as_str()
                    .filter(|id| name == "id" && id.starts_with("call_"));
                *inner = match id {
                    Some(id) => {
                        assert!(id.len() <= 40, "OpenAI takes no longer ones back: {id}");
                        format!("call_…{}", &id["call_".len() + 24..]).into()
                    }
                    None => without_ids(inner.take()),
                };
            }
        }
        Value::Array(entries) => entries
            .iter_mut()
            .for_each(|entry| *entry = without_ids(entry.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn an_answer() {
    let app = TestApp::scripted(&Scripted::new(script())).await;
    let answer = app.post(CHAT, asked(json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = without_ids(answer.json());
    let choices: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| format!("{choice}\n"))
        .collect();
    assert_snapshot!(choices.concat(), @r#"
    {"index":0,"message":{"role":"assistant","content":"Look:","refusal":null,"tool_calls":[{"id":"call_…_0_0","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"call_…_0_1","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}
    {"index":1,"message":{"role":"assistant","content":null,"refusal":null,"reasoning_content":"hm","tool_calls":[{"id":"call_…_1_0","type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}
    "#);
    assert_eq!(
        answer["usage"]["completion_tokens_details"]["reasoning_tokens"],
        1
    );
}

#[tokio::test]
async fn a_stream() {
    let app = TestApp::scripted(&Scripted::new(script())).await;
    let frames = app
        .post(CHAT, asked(json!({"stream": true})))
        .await
        .frames();
    let choices: Vec<_> = frames
        .into_iter()
        .filter_map(|frame| Some(format!("{}\n", without_ids(frame.get("choices")?.clone()))))
        .collect();
    assert_snapshot!(choices.concat(), @r#"
    [{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]
    [{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]
    [{"index":1,"delta":{"reasoning_content":"hm"},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"content":"Look:"},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_…_0_0","type":"function","function":{"name":"f","arguments":""}}]},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"logprobs":null,"finish_reason":null}]
    [{"index":1,"delta":{"tool_calls":[{"index":0,"id":"call_…_1_0","type":"function","function":{"name":"g","arguments":""}}]},"logprobs":null,"finish_reason":null}]
    [{"index":1,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_…_0_1","type":"function","function":{"name":"f","arguments":""}}]},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]},"logprobs":null,"finish_reason":null}]
    [{"index":1,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]
    [{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]
    "#);
}

/// The fragments of a stream add up to the whole answer if they are concatenated, as the SDKs do.
#[tokio::test]
async fn a_stream_adds_up_to_the_answer() {
    let app = TestApp::scripted(&Scripted::new(script())).await;
    let whole = app.post(CHAT, asked(json!({}))).await.json();
    let frames = app
        .post(CHAT, asked(json!({"stream": true})))
        .await
        .frames();
    for choice in whole["choices"].as_array().unwrap() {
        let deltas = || {
            frames
                .iter()
                .filter_map(|frame| frame.pointer("/choices/0"))
                .filter(|chunk| chunk["index"] == choice["index"])
                .map(|chunk| &chunk["delta"])
        };
        let joined = |pointer: &str| {
            let pieces = deltas().filter_map(|delta| delta.pointer(pointer)?.as_str());
            pieces.collect::<String>()
        };
        let message = &choice["message"];
        assert_eq!(
            joined("/content"),
            message["content"].as_str().unwrap_or("")
        );
        assert_eq!(
            joined("/reasoning_content"),
            message["reasoning_content"].as_str().unwrap_or("")
        );
        for (index, call) in message["tool_calls"].as_array().unwrap().iter().enumerate() {
            let of_call = |field: &str| {
                let fragments = deltas().filter_map(|delta| delta.pointer("/tool_calls/0"));
                let pieces = fragments
                    .filter(|fragment| fragment["index"] == index)
                    .filter_map(|fragment| fragment.pointer(field)?.as_str());
                pieces.collect::<String>()
            };
            assert_eq!(of_call("/function/name"), call["function"]["name"]);
            assert_eq!(
                of_call("/function/arguments"),
                call["function"]["arguments"]
            );
            assert_eq!(of_call("/type"), "function");
            assert!(of_call("/id").starts_with("call_"));
        }
    }
    let ids: std::collections::HashSet<_> = frames
        .iter()
        .filter_map(|frame| frame.pointer("/choices/0/delta/tool_calls/0/id"))
        .collect();
    assert_eq!(ids.len(), 3, "each call has its own id");
}

/// The engine gets the tools, the messages and the format of the request.
#[tokio::test]
async fn what_is_asked_for() {
    let engine = Scripted::new(script());
    let app = TestApp::scripted(&engine).await;
    let fields = json!({
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "reasoning_content": "b", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "c", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "d", "reasoning": "e"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "f", "description": "does", "strict": true,
            "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "separate_reasoning": true,
        "enable_thinking": false,
        "chat_template_kwargs": {"a": 1},
    });
    let answer = app.post(CHAT, asked(fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = engine.asked().pop().unwrap();
    let Input::Chat(conversation) = asked.input else {
        panic!("a conversation")
    };
    let [_, called, told, thought] = conversation.messages.as_slice() else {
        panic!("four messages")
    };
    assert_eq!(
        (
            called.role,
            called.content.as_deref(),
            called.reasoning.as_deref()
        ),
        (Role::Assistant, None, Some("b"))
    );
    assert_eq!(called.tool_calls[0].name, "f");
    assert_eq!(told.tool_call_id.as_deref(), Some("call_1"));
    assert_eq!(thought.reasoning.as_deref(), Some("e"));
    let [tool] = conversation.tools.tools.as_slice() else {
        panic!("one tool")
    };
    assert_eq!(
        (tool.name.as_str(), tool.description.as_deref(), tool.strict),
        ("f", Some("does"), true)
    );
    assert_eq!(
        tool.parameters.as_ref().unwrap().to_string(),
        r#"{"type":"object","properties":{"z":{},"a":{}}}"#,
        "names stay in their order"
    );
    assert_eq!(conversation.tools.choice, ToolChoice::Named("f".to_owned()));
    assert_eq!(conversation.tools.parallel, Some(false));
    assert!(conversation.separate_reasoning);
    assert_eq!(
        json!(conversation.template_kwargs),
        json!({"a": 1, "enable_thinking": false})
    );
    assert_eq!(
        asked.format,
        Format::JsonSchema(json!({"type": "object"}).into())
    );
}

/// huggingface_hub sends a schema in text-generation-inference's form.
#[tokio::test]
async fn a_schema_as_the_value_of_a_json_object() {
    let engine = Scripted::new(script());
    let app = TestApp::scripted(&engine).await;
    let format = json!({"type": "json_object", "value": {"type": "object"}});
    let answer = app
        .post(CHAT, asked(json!({"response_format": format})))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        engine.asked().pop().unwrap().format,
        Format::JsonSchema(Schema::new(r#"{"type":"object"}"#, "response_format.value"))
    );
    let format = json!({"type": "json_object", "value": "any"});
    let answer = app
        .post(CHAT, asked(json!({"response_format": format})))
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// An engine that breaks its contract leads to an internal error, not to a panic.
#[tokio::test]
async fn calls_out_of_order() {
    let rows = [
        vec![text(0, Channel::Call(0), "{}")],
        vec![call(0, 1, "f")],
        vec![call(2, 0, "f")],
    ];
    for script in rows {
        let app = TestApp::scripted(&Scripted::new(script)).await;
        let answer = app.post(CHAT, asked(json!({}))).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (500, &json!("INTERNAL_ERROR"))
        );
    }
}

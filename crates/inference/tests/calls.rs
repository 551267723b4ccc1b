//! Tool calls that are required are made, whatever the model would rather write.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is wrong"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use weir_engine::request::{
    Conversation, Format, Message, Role, SamplingFields, Schema, Tool, ToolChoice, Tools,
};
use weir_engine::{
    Channel, Engine, EngineError, Event, Feature, FinishReason, Input, Request, Sampling,
};
use weir_inference::model::Capacity;
use weir_inference::sim;

fn conversation(choice: ToolChoice) -> Conversation {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(Arc::new(parameters)),
        parameters_text: None,
        strict: false,
    };
    let place = json!({
        "type": "object",
        "properties": {
            "city": {"enum": ["Ulm", "Köln"]},
            "days": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "maxItems": 3},
            "exact": {"type": "boolean"},
        },
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
    Conversation {
        messages: vec![Message::new(Role::User, "How is the weather?")],
        tools: Tools {
            tools: vec![tool("weather", place), tool("now", empty)],
            choice,
            parallel: None,
        },
        ..Conversation::default()
    }
}

/// The calls of an answer, and why it ended.
async fn answer(seed: u64, conversation: Conversation) -> (Vec<(String, String)>, FinishReason) {
    let mut request = Request::new(Input::Chat(conversation));
    request.sampling = Sampling::new(SamplingFields {
        temperature: Some(1.5),
        seed: Some(i64::try_from(seed).unwrap()),
        ..SamplingFields::default()
    })
    .unwrap();
    let engine = sim::engine(seed);
    let prepared = engine.render(request).await.unwrap();
    let mut events = engine.start(prepared).unwrap();
    let (mut calls, mut finished) = (Vec::<(String, String)>::new(), None);
    while let Some(event) = events.next().await {
        match event {
            Event::Call {
                choice: 0,
                call,
                name,
            } => {
                assert_eq!(call as usize, calls.len());
                calls.push((name, String::new()));
            }
            Event::Text {
                channel: Channel::Call(call),
                text,
                ..
            } => {
                calls[call as usize].1.push_str(&text);
            }
            Event::Finished { reason, .. } => finished = Some(reason),
            Event::Done(usage) => assert!(usage.completion > 0),
            other => panic!("{other:?}"),
        }
    }
    (calls, finished.unwrap())
}

fn check(name: &str, arguments: &str) {
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    if name == "now" {
        assert_eq!(arguments, json!({}));
        return;
    }
    assert_eq!(name, "weather");
    assert!(
        ["Ulm", "Köln"].contains(&arguments["city"].as_str().unwrap()),
        "{arguments}"
    );
    assert!(
        (1..=3).contains(&arguments["days"].as_array().unwrap().len()),
        "{arguments}"
    );
}

#[tokio::test]
async fn required_and_named_calls_are_calls() {
    let mut most = 0;
    for seed in 0..20 {
        // A model whose template doesn't support tools makes one call, unless several are asked for.
        let required = conversation(ToolChoice::Required);
        let (calls, _) = answer(seed, required.clone()).await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        let mut several = required;
        several.tools.parallel = Some(true);
        let (calls, finished) = answer(seed, several).await;
        assert!((1..=16).contains(&calls.len()), "{calls:?}");
        most = most.max(calls.len());
        assert_eq!(finished, FinishReason::ToolCalls);
        calls
            .iter()
            .for_each(|(name, arguments)| check(name, arguments));
        let named = ToolChoice::Named("weather".to_owned());
        let (calls, finished) = answer(seed, conversation(named)).await;
        assert_eq!((calls.len(), finished), (1, FinishReason::ToolCalls));
        assert_eq!(calls[0].0, "weather");
        check(&calls[0].0, &calls[0].1);
    }
    assert!(most > 1, "nobody was asked for several calls");
}

#[test]
fn every_model_that_talks_can_call() {
    let features = |chat| {
        let options = sim::SimOptions {
            chat,
            ..sim::SimOptions::default()
        };
        let engine = sim::engine_with(sim::SimModel::new(options));
        engine.facts().features.contains(&Feature::FunctionCalling)
    };
    assert!(features(true));
    assert!(!features(false));
}

/// The error names the field of the schema that can't be enforced.
#[tokio::test]
async fn a_schema_that_cannot_be_enforced_is_refused() {
    let engine = sim::engine(0);
    let check = async |choice: ToolChoice, at: usize, schema: Value, format, param: &str| {
        let mut conversation = conversation(choice);
        conversation.tools.tools[at].parameters = Some(Arc::new(schema.clone()));
        conversation.tools.tools[at].strict = true;
        let mut request = Request::new(Input::Chat(conversation));
        request.format = format;
        match engine.render(request).await {
            Err(EngineError::Invalid(invalid)) => assert_eq!(invalid.param, param, "{schema}"),
            other => panic!("{schema}: {other:?}"),
        }
    };
    let free = || Format::Text;
    let any = || ToolChoice::Required;
    let named = || ToolChoice::Named("now".to_owned());
    let unique = json!({"properties": {"a": {"type": "array", "uniqueItems": true}}});
    let foreign = json!({"properties": {"a": {"$ref": "https://example.com/a.json"}}});
    let broken = json!({"properties": {"a": {"type": "string", "pattern": "("}}});
    for schema in [unique, foreign, broken.clone(), json!({"type": "nonsense"})] {
        let first = "tools.0.function.parameters";
        check(any(), 0, schema.clone(), free(), first).await;
        let second = "tools.1.function.parameters";
        check(any(), 1, schema.clone(), free(), second).await;
        check(named(), 1, schema.clone(), free(), second).await;
        let document = Format::JsonObject;
        check(ToolChoice::Auto, 1, schema, document, second).await;
    }
    let format = "response_format.json_schema.schema";
    let document = Format::JsonSchema(Schema::from(broken).strict(true));
    check(ToolChoice::Auto, 1, json!({}), document, format).await;
}

/// Without `strict` a tool's schema never makes a request fail: the places that can't be enforced are listed, with their
/// pointers in the request.
#[tokio::test]
async fn what_of_a_tool_cannot_be_enforced_is_listed() {
    let engine = sim::engine(0);
    let mut conversation = conversation(ToolChoice::Required);
    conversation.tools.tools[1].parameters = Some(Arc::new(json!({
        "properties": {"a": {"type": "array", "uniqueItems": true}, "b": {"type": "string", "pattern": "\\bx"}},
        "not": {"required": ["c"]}, "strict": true,
    })));
    let prepared = engine
        .render(Request::new(Input::Chat(conversation)))
        .await
        .unwrap();
    let mut pointers: Vec<_> = prepared
        .relaxed
        .iter()
        .map(|relaxed| relaxed.pointer.as_str())
        .collect();
    pointers.sort_unstable();
    let within = "/tools/1/function/parameters/properties";
    assert_eq!(
        pointers,
        [
            format!("{within}/a/uniqueItems"),
            format!("{within}/b/pattern")
        ]
    );
}

/// Schemas that are too large only together: the error blames no single tool.
#[tokio::test]
async fn schemas_that_are_too_many_together_are_refused_where_they_are_strict() {
    let mut conversation = conversation(ToolChoice::Required);
    let mut properties = serde_json::Map::new();
    for i in 0..250 {
        properties.insert(
            format!("property_{i}"),
            json!({"type": "integer", "maximum": 1_000_000 + i}),
        );
    }
    let wide = Arc::new(json!({"type": "object", "properties": properties}));
    conversation.tools.tools = (0..60)
        .map(|i| Tool {
            name: format!("tool_{i}"),
            description: None,
            parameters: Some(Arc::clone(&wide)),
            parameters_text: None,
            strict: true,
        })
        .collect();
    let long = 1 << 20;
    let engine = sim::engine_with(sim::SimModel::new(sim::SimOptions {
        context_tokens: long,
        capacity: Capacity {
            cells: long,
            ..sim::SimOptions::default().capacity
        },
        ..sim::SimOptions::default()
    }));
    let request = |strict: bool| {
        let mut conversation = conversation.clone();
        conversation
            .tools
            .tools
            .iter_mut()
            .for_each(|tool| tool.strict = strict);
        Request::new(Input::Chat(conversation))
    };
    match engine.render(request(true)).await {
        Err(EngineError::Invalid(invalid)) => {
            assert!(invalid.param.starts_with("tools"), "{invalid}");
        }
        other => panic!("{other:?}"),
    }
    let prepared = engine.render(request(false)).await.unwrap();
    assert!(!prepared.relaxed.is_empty());
}

//! Calls that must be are calls, whatever the model would rather say.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is wrong"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use weir_engine::request::{Conversation, Message, Role, SamplingFields, Tool, ToolChoice, Tools};
use weir_engine::{
    Channel, Engine, EngineError, Event, Feature, FinishReason, Input, Request, Sampling, sim,
};

fn conversation(choice: ToolChoice) -> Conversation {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(Arc::new(parameters)),
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
            one_at_a_time: false,
        },
        ..Conversation::default()
    }
}

/// The calls of an answer, and how it ended.
async fn answer(seed: u64, conversation: Conversation) -> (Vec<(String, String)>, FinishReason) {
    let mut request = Request::new(Input::Chat(conversation));
    request.sampling = Sampling::new(SamplingFields {
        temperature: Some(1.5),
        seed: Some(i64::try_from(seed).unwrap()),
        ..SamplingFields::default()
    })
    .unwrap();
    let engine = sim::engine(seed);
    let prepared = engine.prepare(request).await.unwrap();
    let mut events = engine.generate(prepared).await.unwrap();
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
    for seed in 0..20 {
        let (calls, finished) = answer(seed, conversation(ToolChoice::Required)).await;
        assert!((1..=16).contains(&calls.len()), "{calls:?}");
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

#[tokio::test]
async fn a_schema_that_is_none_is_refused() {
    let mut conversation = conversation(ToolChoice::Required);
    conversation.tools.tools[1].parameters = Some(Arc::new(json!({"type": "nonsense"})));
    let request = Request::new(Input::Chat(conversation));
    match sim::engine(0).prepare(request).await {
        Err(EngineError::Invalid(invalid)) => assert_eq!(invalid.param, "tools"),
        other => panic!("{other:?}"),
    }
}

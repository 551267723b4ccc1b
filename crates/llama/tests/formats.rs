//! A small model at a high temperature writes only documents that the schema allows. `tests/e2e/test_documents.py` tests 200
//! requests over HTTP; here two requests have many choices.

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weir_engine::request::{
    Choices, Format, OutputLimit, Overflow, Prompt, Request, Sampling, SamplingFields,
};
use weir_engine::{Event, FinishReason, Input};
use weir_inference::local::{LocalEngine, Options};
use weir_llama::LoadOptions;

#[path = "support/common.rs"]
mod common;
use common::{small, smollm2};

const DOCUMENTS: usize = 40;
const SEEDS: i64 = 2;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 4 },
            "kind": { "enum": ["cat", "dog", null] },
            "age": { "type": "integer", "minimum": 0, "maximum": 30 },
            "weight": { "type": "number", "exclusiveMinimum": 0, "maximum": 9.5 },
            "owner": {
                "type": "object",
                "properties": {
                    "zip": { "type": "string", "pattern": "^[0-9]{3}$" },
                    "known": { "type": "boolean" },
                },
                "required": ["known"],
                "additionalProperties": false,
            },
            "visits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": { "day": { "$ref": "#/$defs/day" } },
                    "required": ["day"],
                    "additionalProperties": false,
                },
                "minItems": 1,
                "maxItems": 2,
            },
        },
        "required": ["name", "kind", "age", "owner", "visits"],
        "additionalProperties": false,
        "$defs": { "day": { "type": "integer", "minimum": 1, "maximum": 7 } },
    })
}

/// Checks the document without the schema's code.
fn is_valid(document: &Value) -> Option<()> {
    let whole = |value: &Value, low: i64, high: i64| {
        let number = value.as_f64()?;
        (number.fract() == 0.0 && (low as f64..=high as f64).contains(&number)).then_some(())
    };
    let pet = object(
        document,
        &["name", "kind", "age", "owner", "visits"],
        &["weight"],
    )?;
    let name = pet["name"].as_str()?.chars().count();
    (1..=4).contains(&name).then_some(())?;
    [json!("cat"), json!("dog"), json!(null)]
        .contains(&pet["kind"])
        .then_some(())?;
    whole(&pet["age"], 0, 30)?;
    if let Some(weight) = pet.get("weight") {
        let weight = weight.as_f64()?;
        (weight > 0.0 && weight <= 9.5).then_some(())?;
    }
    let owner = object(&pet["owner"], &["known"], &["zip"])?;
    owner["known"].as_bool()?;
    if let Some(zip) = owner.get("zip") {
        let zip = zip.as_str()?;
        (zip.len() == 3 && zip.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    }
    let visits = pet["visits"].as_array()?;
    (1..=2).contains(&visits.len()).then_some(())?;
    visits
        .iter()
        .try_for_each(|visit| whole(&object(visit, &["day"], &[])?["day"], 1, 7))
}

/// The value as an object, if it has all the required names, and otherwise only names of `others`.
fn object<'a>(
    value: &'a Value,
    required: &[&str],
    others: &[&str],
) -> Option<&'a Map<String, Value>> {
    let object = value.as_object()?;
    let known =
        |name: &String| required.contains(&name.as_str()) || others.contains(&name.as_str());
    let complete = required.iter().all(|&name| object.contains_key(name));
    (complete && object.keys().all(known)).then_some(object)
}

async fn documents(engine: &LocalEngine, seed: i64) -> Vec<(String, Option<FinishReason>)> {
    let choices = DOCUMENTS / SEEDS as usize;
    let fields = SamplingFields {
        temperature: Some(1.5),
        seed: Some(seed),
        ..SamplingFields::default()
    };
    let prompt = "A pet of the clinic, as JSON:\n";
    let request = Request {
        sampling: Sampling::new(fields).expect("values in range"),
        choices: Choices::new(choices as i64).expect("not too many"),
        format: Format::JsonSchema(schema().into()),
        output: OutputLimit {
            tokens: Some(600),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(prompt.to_owned())]))
    };
    let prepared = engine.render(request).await.expect("a good schema");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut documents = vec![(String::new(), None); choices];
    while let Some(event) = events.next().await {
        match event {
            Event::Text { choice, text, .. } => documents[choice as usize].0.push_str(&text),
            Event::Finished { choice, reason } => documents[choice as usize].1 = Some(reason),
            Event::Done(_) => {}
            other => panic!("{other:?}"),
        }
    }
    documents
}

#[test]
fn documents_at_a_high_temperature_are_valid() {
    let options = LoadOptions {
        threads: None,
        // Sequences share one cache, and each token attends over the cells of all: more sequences at once are slower.
        cells: Some(8_192),
        sequences: Some(32),
        ..small()
    };
    let engine = LocalEngine::spawn(smollm2(&options), Options::new(|| Timestamp::UNIX_EPOCH));
    let engine = engine.expect("the engine starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let all = runtime.block_on(join_all((0..SEEDS).map(|seed| documents(&engine, seed))));
    engine.stop_and_wait();

    let all: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(all.len(), DOCUMENTS);
    for (text, reason) in &all {
        assert_eq!(*reason, Some(FinishReason::Stop), "{text}");
        let document: Value = serde_json::from_str(text).expect(text);
        assert!(is_valid(&document).is_some(), "{text}");
    }
    let different: std::collections::BTreeSet<_> = all.iter().map(|(text, _)| text).collect();
    assert!(different.len() > DOCUMENTS * 9 / 10, "{}", different.len());
}

//! Answers with a format.

use weir_engine::request::Schema;

use super::*;

fn with_format(format: Format, text: &str, tokens: u32) -> Request {
    Request {
        format,
        ..request(text, tokens)
    }
}

fn form() -> Format {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "a": { "enum": ["x", "yy"] }, "b": { "type": "boolean" } },
        "required": ["a", "b"],
        "additionalProperties": false,
    });
    Format::JsonSchema(schema.into())
}

/// All events that have been sent.
fn drain(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

fn text(events: &[Event]) -> String {
    let text = events.iter().filter_map(|event| match event {
        Event::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    text.collect()
}

#[test]
fn the_vocabulary_is_read_before_anybody_asks() {
    let engine = sim::engine(0);
    engine.stop_and_wait();
    assert!(engine.preparer.constraints.has_vocabulary());
}

#[tokio::test]
async fn formats_are_kept() {
    let engine = sim::engine(0);
    assert!(
        engine
            .facts()
            .features
            .contains(&Feature::StructuredOutputs)
    );
    for format in [form(), Format::JsonObject] {
        let request = Request {
            choices: Choices::new(30).unwrap(),
            ..with_format(format, "Over the weir", 300)
        };
        let prepared = engine.render(request).await.unwrap();
        let events = engine.start(prepared.clone()).unwrap();
        let answer = read(events, 30).await;
        assert_eq!(answer, solo(&prepared));
        for (text, reason) in answer.choices {
            if reason == Some(FinishReason::Stop) {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert!(value.is_object());
            }
        }
    }
    let refused = engine
        .render(with_format(
            Format::JsonSchema(serde_json::json!({ "not": {} }).into()),
            "",
            1,
        ))
        .await;
    assert!(matches!(refused, Err(EngineError::Invalid(invalid))
        if invalid.param == "response_format.json_schema.schema"));
}

#[test]
fn a_stream_without_a_format_never_waits_for_a_mask() {
    let engine = sim::engine(0);
    let masks = sim::LateMasks::default();
    let model = SimModel::new(SimOptions::default());
    let mut core = Core::new(
        model,
        &sim::options(),
        Box::new(masks.clone()),
        Box::new(|| Duration::ZERO),
    );
    let mut start = |request: Request| {
        let prepared = engine.preparer.prepare(request).unwrap();
        let (sender, events) = event::channel(100);
        core.start(prepared.clone(), sender);
        (prepared, events)
    };
    let (kept, mut slow) = start(with_format(form(), "first", 50));
    let (free, mut quick) = start(request("second", 50));
    while core.step() == Progress::Stepped {}
    let events = drain(&mut quick);
    assert!(matches!(events.last(), Some(Event::Done(_))));
    assert_eq!(text(&events), solo(&free).choices[0].0);
    // The first mask of the choice with a format was there; the second is asked for, and its logits are parked.
    assert_eq!((core.step(), masks.waiting()), (Progress::Blocked, 1));
    assert_eq!(slow.usage().completion, 1);
    while masks.waiting() > 0 {
        masks.release(0);
        core.step();
    }
    assert_eq!(core.step(), Progress::Idle);
    let events = drain(&mut slow);
    assert_eq!(text(&events), solo(&kept).choices[0].0);
    assert!(matches!(events.last(), Some(Event::Done(_))));
}

#[test]
fn what_breaks_a_constraint_fails_its_request_alone() {
    let engine = sim::engine(0);
    let check = |change: fn(&mut SamplingFields), lose: bool, expected: &str| {
        let masks = sim::LateMasks::default();
        let model = SimModel::new(SimOptions::default());
        let mut core = Core::new(
            model,
            &sim::options(),
            Box::new(masks.clone()),
            Box::new(|| Duration::ZERO),
        );
        let mut fields = SamplingFields::default();
        change(&mut fields);
        let three = Request {
            choices: Choices::new(3).unwrap(),
            sampling: Sampling::new(fields).unwrap(),
            ..with_format(form(), "a", 50)
        };
        let other = request("b", 50);
        let mut events = Vec::new();
        for request in [three, other] {
            let prepared = engine.preparer.prepare(request).unwrap();
            let (sender, receiver) = event::channel(100);
            core.start(prepared, sender);
            events.push(receiver);
        }
        while core.step() != Progress::Idle {
            if lose {
                masks.lose();
            } else {
                masks.release(0);
            }
        }
        assert!(matches!(drain(&mut events[1]).last(), Some(Event::Done(_))));
        let last = drain(&mut events[0]).pop();
        assert!(
            matches!(&last, Some(Event::Failed(error)) if error.to_string().contains(expected)),
            "{last:?}"
        );
        assert_eq!(core.scheduler().kv().used_cells(), 0);
    };
    check(|_| (), true, "given up");
    // The only token that the format allows first is forbidden.
    let brace =
        |fields: &mut SamplingFields| fields.logit_bias = vec![(2 + u32::from(b'{'), -100.0)];
    check(brace, false, "logit_bias forbids");
}

#[test]
fn who_hangs_up_while_a_mask_is_computed_is_let_go() {
    let engine = sim::engine(0);
    let masks = sim::LateMasks::default();
    let model = SimModel::new(SimOptions::default());
    let mut core = Core::new(
        model,
        &sim::options(),
        Box::new(masks.clone()),
        Box::new(|| Duration::ZERO),
    );
    let prepared = engine
        .preparer
        .prepare(with_format(form(), "a", 50))
        .unwrap();
    let (sender, events) = event::channel(100);
    core.start(prepared, sender);
    while core.step() == Progress::Stepped {}
    drop(events);
    assert_eq!(core.step(), Progress::Idle);
    assert_eq!(
        (core.scheduler().kv().used_cells(), masks.waiting()),
        (0, 1)
    );
    masks.release(0);
    assert_eq!(core.step(), Progress::Idle);
}

#[tokio::test]
async fn compiling_more_than_a_share_is_refused() {
    let options = Options {
        grammar_compiles: AdmissionOptions {
            burst: Duration::from_micros(1),
            per_second: Duration::from_micros(1),
            ..AdmissionOptions::default()
        },
        ..sim::options()
    };
    let engine = LocalEngine::spawn(SimModel::new(SimOptions::default()), options).unwrap();
    let ask = async |format| engine.render(with_format(format, "a", 1)).await.map(drop);
    assert!(ask(form()).await.is_ok());
    assert!(matches!(
        ask(Format::JsonObject).await,
        Err(EngineError::TooMuchGrammarWork { .. })
    ));
    assert!(ask(form()).await.is_ok(), "a kept one costs nothing");
}

#[tokio::test]
async fn a_format_that_takes_too_much_work_is_named() {
    let objects: Vec<_> = (0..6_000)
        .map(|n| serde_json::json!({ "name": n.to_string(), "value": n }))
        .collect();
    let schema = serde_json::json!({ "enum": objects }).to_string();
    let format = Format::JsonSchema(Schema::new(schema, "structured_outputs.json"));
    let engine = sim::engine(0);
    let prepared = engine.render(with_format(format, "a", 500)).await.unwrap();
    let answer = read(engine.start(prepared).unwrap(), 1).await;
    let Some(Err(EngineError::Invalid(invalid))) = answer.end else {
        panic!("{:?}", answer.end)
    };
    assert_eq!(invalid.param, "structured_outputs.json");
}

#[tokio::test]
async fn the_time_of_long_masks_is_counted_and_refuses_a_kept_grammar_too() {
    let options = Options {
        grammar_compiles: AdmissionOptions {
            burst: Duration::from_micros(1),
            per_second: Duration::from_micros(1),
            ..AdmissionOptions::default()
        },
        ..sim::options()
    };
    let engine = LocalEngine::spawn(SimModel::new(SimOptions::default()), options).unwrap();
    // The n-th "a" has as many readings as n has sums. The "b" that would end the text is forbidden.
    let grammar = r#"root ::= ("a"{1,2000}){1,2000} "b""#;
    let fields = SamplingFields {
        logit_bias: vec![(2 + u32::from(b'b'), -100.0)],
        ..SamplingFields::default()
    };
    let ask = |account: &str| Request {
        account: account.into(),
        sampling: Sampling::new(fields.clone()).unwrap(),
        ..with_format(Format::Grammar(grammar.into(), "grammar"), "a", 2_000)
    };
    let mut prepared = engine.render(ask("a")).await.unwrap();
    prepared.account = "a".into();
    assert!(engine.render(ask("a")).await.is_ok(), "it is kept");
    let answer = read(engine.start(prepared).unwrap(), 1).await;
    let Some(Err(EngineError::Invalid(invalid))) = answer.end else {
        panic!("{:?}", answer.end)
    };
    assert_eq!(invalid.param, "grammar");
    let refused = engine.render(ask("a")).await.map(drop);
    assert!(
        matches!(refused, Err(EngineError::TooMuchGrammarWork { .. })),
        "{refused:?}"
    );
    assert!(engine.render(ask("b")).await.is_ok(), "another account");
    assert!(engine.render(request("a", 1)).await.is_ok(), "no format");
}

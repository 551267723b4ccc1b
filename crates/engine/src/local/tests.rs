use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::Token;
use crate::event::{Allowance, Event, FinishReason, Usage};
use crate::model::{Batching, Bos, Capacity};
use crate::request::{
    Choices, Format, Input, Invalid, Logprobs, Message, OutputLimit, Overflow, Prompt, Role,
    Sampling, SamplingFields, Stop,
};
use crate::sim::{self, Faults, SimModel, SimOptions, SimTokenizer, Solo};

fn request(text: &str, tokens: u32) -> Request {
    let fields = SamplingFields {
        seed: Some(7),
        ..SamplingFields::default()
    };
    Request {
        sampling: Sampling::new(fields).unwrap(),
        output: OutputLimit {
            tokens: Some(tokens),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(text.to_owned())]))
    }
}

fn chat(content: &str) -> Input {
    Input::Chat(vec![Message::new(Role::User, content)].into())
}

/// An answer as its events tell it.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    choices: Vec<(String, Option<FinishReason>)>,
    end: Option<Result<Usage, EngineError>>,
}

async fn read(mut events: Events, choices: usize) -> Answer {
    let mut answer = Answer {
        choices: vec![(String::new(), None); choices],
        end: None,
    };
    while let Some(event) = events.next().await {
        assert_eq!(answer.end, None, "{event:?} after the last event");
        match event {
            Event::Text { choice, text, .. } => answer.choices[choice as usize].0.push_str(&text),
            Event::Call { .. } => panic!("a call that nobody asked for"),
            Event::Finished { choice, reason } => answer.choices[choice as usize].1 = Some(reason),
            Event::Done(usage) => answer.end = Some(Ok(usage)),
            Event::Failed(error) => answer.end = Some(Err(error)),
        }
    }
    answer
}

async fn generate(engine: &LocalEngine, request: Request) -> Result<Events, EngineError> {
    engine.generate(engine.prepare(request).await?).await
}

/// What `read` should give for prompts with one token at their beginning that isn't in the text.
fn solo(prepared: &Prepared) -> Answer {
    let Request {
        sampling,
        stop,
        choices,
        ..
    } = &prepared.request;
    let mut usage = Usage {
        prompt: prepared.prompt_tokens(),
        ..Usage::default()
    };
    let choices = (0..)
        .take(usize::try_from(prepared.choices()).unwrap())
        .map(|choice| {
            let prompt = &prepared.prompts[(choice / choices.get()) as usize];
            let Solo {
                text,
                reason,
                tokens,
                spoken: _,
            } = sim::solo(
                &SimOptions::default(),
                prompt,
                sampling,
                stop,
                prepared.output_max,
                prepared.constraint.as_ref(),
                choice,
            );
            usage.completion += tokens;
            (text, Some(reason))
        });
    let choices = choices.collect();
    Answer {
        choices,
        end: Some(Ok(usage)),
    }
}

#[tokio::test]
async fn answers_are_those_of_the_model_alone() {
    let engine = sim::engine(0);
    let check = async |request: Request| {
        let prepared = engine.prepare(request).await.unwrap();
        let events = engine.generate(prepared.clone()).await.unwrap();
        assert_eq!(
            read(events, usize::try_from(prepared.choices()).unwrap()).await,
            solo(&prepared)
        );
    };
    let plain = || request("Over the weir", 60);
    check(plain()).await;
    check(request("Over the weir", 0)).await;
    check(Request {
        input: chat("Where does it run?"),
        ..plain()
    })
    .await;
    check(Request {
        choices: Choices::new(20).unwrap(),
        ..plain()
    })
    .await;
    check(Request {
        choices: Choices::new(128).unwrap(),
        ..request("x", 3)
    })
    .await;
    check(Request {
        choices: Choices::new(3).unwrap(),
        ..request("x", 0)
    })
    .await;
    check(Request {
        stop: Stop::new(vec![" river stone".to_owned(), " fish".to_owned()]).unwrap(),
        ..plain()
    })
    .await;
    let prompts = ["one", "", "three"].map(|text| Prompt::Text(text.to_owned()));
    let prompts = Input::Prompts([&prompts[..], &[Prompt::Tokens(vec![1, 2, 3])]].concat());
    check(Request {
        input: prompts,
        choices: Choices::new(2).unwrap(),
        ..plain()
    })
    .await;
}

#[tokio::test]
async fn prompts_are_echoed_as_they_came() {
    let engine = sim::engine(0);
    let check = async |prompt: Prompt, tokens: u32, echo: &str| {
        let plain = Request {
            input: Input::Prompts(vec![prompt]),
            ..request("", tokens)
        };
        let echoed = Request {
            echo: true,
            ..plain.clone()
        };
        let without = read(generate(&engine, plain).await.unwrap(), 1).await;
        let mut with = read(generate(&engine, echoed).await.unwrap(), 1).await;
        let text = with.choices[0].0.strip_prefix(echo).map(str::to_owned);
        with.choices[0].0 = text.unwrap_or_else(|| panic!("{with:?} begins with {echo}"));
        assert_eq!(with, without);
    };
    let text = |text: &str| Prompt::Text(text.to_owned());
    check(text("Über the weir"), 20, "Über the weir").await;
    check(text("Über the weir"), 0, "Über the weir").await;
    // A stop string is looked for in what is generated only, and special tokens are no text.
    check(
        Prompt::Tokens(SimTokenizer.tokenize("語 the", Bos::Add)),
        20,
        "語 the",
    )
    .await;
    check(Prompt::Tokens(vec![2 + 0xff, 2 + 0x61]), 0, "\u{fffd}a").await;
}

#[tokio::test]
async fn requests_that_cannot_be_answered_are_refused() {
    let small = || {
        SimModel::new(SimOptions {
            context_tokens: 50,
            ..SimOptions::default()
        })
    };
    let engine = sim::engine_with(small());
    let context = 50;
    let output = |tokens, overflow| OutputLimit { tokens, overflow };
    let check = async |request: Request, expected: Result<u32, EngineError>| {
        assert_eq!(
            engine
                .prepare(request)
                .await
                .map(|prepared| prepared.output_max),
            expected
        );
    };
    let invalid =
        |param: &str, message: &str| Err(EngineError::Invalid(Invalid::new(param, message)));
    let tokens = |tokens: Vec<Token>| Input::Prompts(vec![Prompt::Tokens(tokens)]);
    let plain = || request("123456789", 40);

    check(plain(), Ok(40)).await;
    check(
        request("123456789", 41),
        Err(EngineError::TooLong {
            context,
            prompt: 10,
            requested: Some(41),
        }),
    )
    .await;
    check(
        Request {
            output: output(Some(41), Overflow::Lower),
            ..plain()
        },
        Ok(40),
    )
    .await;
    check(
        Request {
            output: output(None, Overflow::Lower),
            ..plain()
        },
        Ok(40),
    )
    .await;
    check(
        Request {
            input: tokens(vec![5; 50]),
            ..request("", 0)
        },
        Ok(0),
    )
    .await;
    let full = EngineError::TooLong {
        context,
        prompt: 50,
        requested: None,
    };
    check(
        Request {
            input: tokens(vec![5; 50]),
            output: output(None, Overflow::Lower),
            ..plain()
        },
        Err(full),
    )
    .await;
    // 16 × 8 prompts of 32 tokens, each with its 3 alternatives, in 16 choices: as many as may be.
    let scored = |prompts: usize| Request {
        input: Input::Prompts(vec![Prompt::Tokens(vec![5; 32]); prompts]),
        choices: Choices::new(16).unwrap(),
        logprobs: Some(Logprobs::new("logprobs", 3).unwrap()),
        echo: true,
        ..request("", 1)
    };
    assert_eq!(128 * 32 * (1 + 3) * 16, ECHOED_LOGPROBS_MAX);
    check(scored(128), Ok(1)).await;
    check(
        scored(129),
        invalid(
            "echo",
            "echo with logprobs would answer 264192 log-probabilities of prompt tokens; at most 262144 are \
             allowed: use fewer prompts, choices or alternatives",
        ),
    )
    .await;
    check(
        Request {
            echo: false,
            ..scored(129)
        },
        Ok(1),
    )
    .await;
    let over = EngineError::TooLong {
        context,
        prompt: 51,
        requested: Some(0),
    };
    check(
        Request {
            input: tokens(vec![5; 51]),
            ..request("", 0)
        },
        Err(over),
    )
    .await;

    check(
        Request {
            input: tokens(vec![]),
            ..plain()
        },
        invalid("prompt", "prompt must not be empty: it has no tokens"),
    )
    .await;
    let no_prompts = Request {
        input: Input::Prompts(vec![]),
        ..plain()
    };
    check(
        no_prompts,
        invalid("prompt", "prompt must not be empty: it has no tokens"),
    )
    .await;
    let vocabulary = small().tokenizer().vocabulary();
    let outside = |param| {
        invalid(
            param,
            &format!(
                "{param} has token 9999, but the model's vocabulary ends at {}",
                vocabulary - 1
            ),
        )
    };
    check(
        Request {
            input: tokens(vec![1, 9999]),
            ..plain()
        },
        outside("prompt"),
    )
    .await;
    let fields = SamplingFields {
        logit_bias: vec![(9999, 1.0)],
        ..SamplingFields::default()
    };
    check(
        Request {
            sampling: Sampling::new(fields).unwrap(),
            ..plain()
        },
        outside("logit_bias"),
    )
    .await;

    let mute = sim::engine_with(SimModel::new(SimOptions {
        chat: false,
        ..SimOptions::default()
    }));
    assert!(!mute.facts().chat && engine.facts().chat);
    let refused = mute
        .prepare(Request {
            input: chat("hi"),
            ..plain()
        })
        .await;
    assert_eq!(
        refused.map(|_| ()),
        Err(EngineError::Unsupported { feature: "chat" })
    );

    // Whoever carries the prepared request must not make it longer.
    let mut prepared = engine.prepare(plain()).await.unwrap();
    prepared.output_max += 1;
    let refused = engine.generate(prepared).await.map(|_| ());
    assert_eq!(
        refused,
        Err(EngineError::TooLong {
            context,
            prompt: 10,
            requested: Some(41)
        })
    );
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    // What came in with the step that is running still counts.
    let engine = LocalEngine::spawn(
        model,
        Options {
            queue_requests_max: 3,
            ..sim::options()
        },
    )
    .unwrap();
    let running = generate(&engine, request("a", 1)).await.unwrap();
    gate.arrived(1).await;
    let queued = [
        generate(&engine, request("b", 1)).await.unwrap(),
        generate(&engine, request("c", 1)).await.unwrap(),
    ];
    let refused = generate(&engine, request("d", 1)).await.map(|_| ());
    let Err(EngineError::Busy { retry_after }) = refused else {
        panic!("{refused:?}")
    };
    assert!((1..=60).contains(&retry_after.as_secs()), "{retry_after:?}");
    gate.open();
    for events in [running].into_iter().chain(queued) {
        assert!(matches!(read(events, 1).await.end, Some(Ok(_))));
    }
}

#[tokio::test]
async fn a_closed_receiver_frees_its_sequences_within_a_step() {
    let endless = SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    };
    let (model, gate) = SimModel::new(endless).gated();
    let probe = model.probe();
    let engine = sim::engine_with(model);
    let other = generate(&engine, request("other", 50)).await.unwrap();
    let many = Request {
        choices: Choices::new(8).unwrap(),
        ..request("gone", 1000)
    };
    let events = generate(&engine, many).await.unwrap();
    gate.pass(5);
    gate.arrived(6).await;
    assert!(probe.sequences_used() >= 9, "{probe:?}");
    drop(events);
    // The step that is at the gate was planned before.
    gate.pass(1);
    gate.arrived(7).await;
    assert_eq!(probe.sequences_used(), 1);
    gate.open();
    assert!(matches!(
        read(other, 1).await.end,
        Some(Ok(Usage { completion: 50, .. }))
    ));
}

#[tokio::test]
async fn a_fault_fails_those_in_the_step_only() {
    let faults = Faults {
        fault_at: Some(1),
        ..Faults::default()
    };
    let (model, gate) = SimModel::new(SimOptions {
        faults,
        ..SimOptions::default()
    })
    .gated();
    let engine = sim::engine_with(model);
    let unlucky = generate(&engine, request("first", 20)).await.unwrap();
    gate.pass(1);
    gate.arrived(2).await;
    let later = engine.prepare(request("second", 20)).await.unwrap();
    let lucky = engine.generate(later.clone()).await.unwrap();
    gate.open();
    assert_eq!(
        read(unlucky, 1).await.end,
        Some(Err(EngineError::Fault("this step was to fail".to_owned())))
    );
    assert_eq!(read(lucky, 1).await, solo(&later));
    assert_eq!(engine.health(), Health::Ready);
}

#[tokio::test]
async fn a_panic_fails_all_and_takes_the_engine_down() {
    let faults = Faults {
        panic_at: Some(3),
        ..Faults::default()
    };
    let endless = SimOptions {
        faults,
        end_probability: 0.0,
        ..SimOptions::default()
    };
    let (model, gate) = SimModel::new(endless).gated();
    let engine = sim::engine_with(model);
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(generate(&engine, request("a", 20)).await.unwrap());
    }
    gate.open();
    for events in running {
        let end = read(events, 1).await.end;
        assert!(
            matches!(&end, Some(Err(EngineError::Fault(why))) if why.contains("was to panic")),
            "{end:?}"
        );
    }
    assert!(matches!(engine.health(), Health::Down(_)));
    let refused = generate(&engine, request("b", 20)).await.map(|_| ());
    assert!(
        matches!(refused, Err(EngineError::Unavailable(_))),
        "{refused:?}"
    );
    engine.stop();
}

#[tokio::test]
async fn draining_finishes_what_was_accepted() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let engine = sim::engine_with(model);
    let prepared = engine.prepare(request("a", 20)).await.unwrap();
    let running = engine.generate(prepared.clone()).await.unwrap();
    let queued = engine.generate(prepared.clone()).await.unwrap();
    engine.drain();
    let refused = engine.generate(prepared.clone()).await.map(|_| ());
    assert!(
        matches!(refused, Err(EngineError::Busy { .. })),
        "{refused:?}"
    );
    gate.open();
    assert_eq!(read(running, 1).await, solo(&prepared));
    assert_eq!(read(queued, 1).await, solo(&prepared));
    assert_eq!(engine.health(), Health::Ready);
}

#[tokio::test]
async fn a_dropped_engine_fails_what_is_left() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let engine = sim::engine_with(model);
    let running = generate(&engine, request("a", 20)).await.unwrap();
    gate.arrived(1).await;
    let queued = generate(&engine, request("b", 20)).await.unwrap();
    drop(engine);
    gate.open();
    for events in [running, queued] {
        let end = read(events, 1).await.end;
        assert_eq!(
            end,
            Some(Err(EngineError::Unavailable(
                "the engine has stopped".to_owned()
            )))
        );
    }
}

#[tokio::test]
async fn an_allowance_is_never_exceeded() {
    let endless = SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    };
    let engine = sim::engine_with(SimModel::new(endless));
    let three = Request {
        choices: Choices::new(3).unwrap(),
        ..request("a", 20)
    };
    let mut prepared = engine.prepare(three).await.unwrap();
    prepared.allowance = Allowance::rolling(10);
    let allowance = prepared.allowance.clone();
    let events = engine.generate(prepared.clone()).await.unwrap();
    // All that may be generated is, and no more: the engine waits without being asked to.
    while events.usage().completion < 10 {
        tokio::task::yield_now().await;
    }
    allowance.raise(5);
    while events.usage().completion < 15 {
        tokio::task::yield_now().await;
    }
    allowance.close();
    let answer = read(events, 3).await;
    assert!(
        answer
            .choices
            .iter()
            .all(|(_, reason)| *reason == Some(FinishReason::Length)),
        "{answer:?}"
    );
    assert!(
        matches!(answer.end, Some(Ok(Usage { completion: 15, .. }))),
        "{answer:?}"
    );
}

#[test]
fn a_reader_that_never_reads_is_given_up() {
    let model = SimModel::new(SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    });
    let preparer = LocalEngine::spawn(SimModel::new(SimOptions::default()), sim::options())
        .unwrap()
        .preparer
        .clone();
    let seconds = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&seconds);
    let options = Options {
        write_timeout: Duration::from_secs(60),
        ..sim::options()
    };
    let mut core = Core::new(
        model,
        &options,
        Box::new(sim::PromptMasks),
        Box::new(move || Duration::from_secs(clock.load(Ordering::SeqCst))),
    );
    let (sender, mut events) = event::channel(4);
    core.start(preparer.prepare(request("a", 1000)).unwrap(), sender);
    while core.step() != Progress::Blocked {}
    let held = core.scheduler().kv().used_cells();
    assert!(held > 0);
    seconds.store(59, Ordering::SeqCst);
    assert_eq!(
        (core.step(), core.scheduler().kv().used_cells()),
        (Progress::Blocked, held)
    );
    seconds.store(60, Ordering::SeqCst);
    assert_eq!(
        (core.step(), core.scheduler().kv().used_cells()),
        (Progress::Idle, 0)
    );
    let mut last = None;
    while let Some(Some(event)) = events.next().now_or_never() {
        last = Some(event);
    }
    assert!(
        matches!(last, Some(Event::Failed(EngineError::Unavailable(_)))),
        "{last:?}"
    );
}

#[test]
fn a_sequence_that_outgrows_the_model_ends() {
    let faults = Faults {
        cells_missing: 70,
        ..Faults::default()
    };
    let capacity = Capacity {
        cells: 100,
        sequences: 4,
        rows: 16,
        outputs: 4,
        batching: Batching::Together,
    };
    let options = SimOptions {
        faults,
        capacity,
        end_probability: 0.0,
        ..SimOptions::default()
    };
    let engine = sim::engine_with(SimModel::new(options));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Together they don't fit the 30 cells that there are, and the second doesn't alone.
        let short = generate(&engine, request("12345", 20)).await.unwrap();
        let long = generate(&engine, request("12345", 80)).await.unwrap();
        let (short, long) = (read(short, 1).await, read(long, 1).await);
        assert!(
            matches!(short.end, Some(Ok(Usage { completion: 20, .. }))),
            "{short:?}"
        );
        assert!(
            matches!(long.end, Some(Ok(Usage { completion: 25, .. }))),
            "{long:?}"
        );
        assert_eq!(long.choices[0].1, Some(FinishReason::Length));
        assert!(long.choices[0].0.starts_with(&short.choices[0].0[..10]));
    });
}

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
    Format::JsonSchema(Arc::new(schema))
}

/// All events that are there.
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
        let prepared = engine.prepare(request).await.unwrap();
        let events = engine.generate(prepared.clone()).await.unwrap();
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
        .prepare(with_format(
            Format::JsonSchema(Arc::new(serde_json::json!({ "not": {} }))),
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
    // Its first mask was there, the second is asked for, and its logits wait.
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
    // The only token that may begin it is forbidden.
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

//! Generations that end early: callers that leave, faults, and engines that stop.

use super::*;

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
    // The step that is at the gate was planned before the receiver was dropped.
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
async fn a_step_that_nobody_wants_is_given_up() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let probe = model.probe();
    let engine = sim::engine_with(model);
    let [first, second] = ["first", "second"].map(|prompt| request(prompt, 20));
    let first = generate(&engine, first).await.unwrap();
    gate.arrived(1).await;
    drop(first);
    gate.pass(1);
    let prepared = engine.render(second).await.unwrap();
    let second = engine.start(prepared.clone()).unwrap();
    gate.open();
    assert_eq!(read(second, 1).await, solo(&prepared));
    assert_eq!((probe.unwanted_steps(), probe.faults()), (1, 0));
    assert_eq!(engine.health(), Health::Ready);
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
    let later = engine.render(request("second", 20)).await.unwrap();
    let lucky = engine.start(later.clone()).unwrap();
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
    engine.stop_and_wait();
}

#[tokio::test]
async fn damaged_weights_fail_all_and_take_the_engine_down() {
    let aside = AsideCapacity {
        rows: 24,
        rows_min: 6,
        tokens: 1_000,
    };
    for (aside, prompt) in [
        (None, "a"),
        (Some(aside), "a prompt that is computed aside"),
    ] {
        let (model, gate) = SimModel::new(SimOptions {
            faults: Faults {
                damaged_from: Some(3),
                ..Faults::default()
            },
            end_probability: 0.0,
            aside,
            ..SimOptions::default()
        })
        .gated();
        let engine = sim::engine_with(model);
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(generate(&engine, request(prompt, 20)).await.unwrap());
        }
        gate.open();
        let gone = EngineError::Unavailable("the file was to be cut".to_owned());
        for events in running {
            assert_eq!(read(events, 1).await.end, Some(Err(gone.clone())));
        }
        assert_eq!(engine.health(), Health::Down(gone.to_string()));
        let refused = generate(&engine, request("b", 20)).await.map(|_| ());
        assert!(
            matches!(refused, Err(EngineError::Unavailable(_))),
            "{refused:?}"
        );
        engine.stop_and_wait();
    }
}

#[tokio::test]
async fn draining_finishes_what_was_accepted() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let engine = sim::engine_with(model);
    let prepared = engine.render(request("a", 20)).await.unwrap();
    let running = engine.start(prepared.clone()).unwrap();
    let queued = engine.start(prepared.clone()).unwrap();
    engine.drain();
    let refused = engine.start(prepared.clone()).map(|_| ());
    assert!(
        matches!(refused, Err(EngineError::Draining { .. })),
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
        matches!(last, Some(Event::Failed(EngineError::SlowReader))),
        "{last:?}"
    );
}

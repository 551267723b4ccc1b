//! Requests that are refused.

use super::*;

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
                .render(request)
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
            prompt: 10.into(),
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
        prompt: 50.into(),
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
    // 128 prompts of 32 tokens, each token with 3 alternatives, in 16 choices: as many as are allowed.
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
        prompt: 51.into(),
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
        .render(Request {
            input: chat("hi"),
            ..plain()
        })
        .await;
    assert_eq!(
        refused.map(|_| ()),
        Err(EngineError::Unsupported { feature: "chat" })
    );

    // The caller must not raise a prepared request's limit.
    let mut prepared = engine.render(plain()).await.unwrap();
    prepared.output_max += 1;
    let refused = engine.start(prepared).map(|_| ());
    assert_eq!(
        refused,
        Err(EngineError::TooLong {
            context,
            prompt: 10.into(),
            requested: Some(41)
        })
    );
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    // Requests that the running step has taken still count as waiting.
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
async fn a_queue_that_one_account_has_filled_lets_others_in() {
    let (model, gate) = SimModel::new(SimOptions::default()).gated();
    let options = Options {
        queue_requests_max: 32,
        ..sim::options()
    };
    let engine = LocalEngine::spawn(model, options).unwrap();
    let prepared = engine.render(request("a", 1)).await.unwrap();
    let start = async |account: &str| {
        let account = account.into();
        let prepared = PreparedRequest {
            account,
            ..prepared.clone()
        };
        engine.start(prepared)
    };
    let mut running = vec![start("one").await.unwrap()];
    gate.arrived(1).await;
    // Requests that the running step has taken still count as waiting.
    for _ in 0..31 {
        running.push(start("one").await.unwrap());
    }
    let refused = start("one").await.map(|_| ());
    assert!(
        matches!(refused, Err(EngineError::Busy { .. })),
        "{refused:?}"
    );
    assert_eq!(
        (engine.accepts("one").is_ok(), engine.accepts("two").is_ok()),
        (false, true)
    );
    // Each other account may have a sixteenth of the queue's length.
    running.push(start("two").await.unwrap());
    running.push(start("two").await.unwrap());
    let refused = start("two").await.map(|_| ());
    assert!(
        matches!(refused, Err(EngineError::Busy { .. })),
        "{refused:?}"
    );
    running.push(start("three").await.unwrap());
    gate.open();
    for events in running {
        assert!(matches!(read(events, 1).await.end, Some(Ok(_))));
    }
}

//! The texts of answers, and what they use.

use super::*;

#[tokio::test]
async fn answers_are_those_of_the_model_alone() {
    let engine = sim::engine(0);
    let check = async |request: Request| {
        let prepared = engine.render(request).await.unwrap();
        let events = engine.start(prepared.clone()).unwrap();
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
    // Prompts of token ids are echoed as text; special tokens have none.
    check(
        Prompt::Tokens(SimTokenizer.tokenize("語 the", Bos::Add)),
        20,
        "語 the",
    )
    .await;
    check(Prompt::Tokens(vec![2 + 0xff, 2 + 0x61]), 0, "\u{fffd}a").await;
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
    let mut prepared = engine.render(three).await.unwrap();
    prepared.allowance = Allowance::rolling(10);
    let allowance = prepared.allowance.clone();
    let events = engine.start(prepared.clone()).unwrap();
    // All allowed tokens are generated, and no more: the engine waits for a raise.
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
        forks: Forks::Anywhere,
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
        // The two don't fit the 30 cells together, and the second doesn't even alone.
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

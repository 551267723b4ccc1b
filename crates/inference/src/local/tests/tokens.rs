//! Which tokens may come, which end a text, and what events report about them.

use weir_engine::Token;
use weir_engine::event::TokenLogprob;
use weir_engine::request::{Keep, PromptLimit, TokenFilter, Truncation};

use super::*;
use crate::sim::END;

/// Everything that a generation's events report.
#[derive(Debug, Default)]
struct Told {
    text: String,
    reason: Option<FinishReason>,
    usage: Usage,
    ids: Vec<Token>,
    prompts: Vec<(Vec<Token>, Vec<TokenLogprob>)>,
}

async fn told(engine: &LocalEngine, request: Request) -> Result<Told, EngineError> {
    let mut events = generate(engine, request).await?;
    let mut told = Told::default();
    while let Some(event) = events.next().await {
        match event {
            Event::Prompt {
                prompt,
                tokens,
                logprobs,
            } => {
                assert_eq!(prompt as usize, told.prompts.len());
                told.prompts.push((tokens.to_vec(), logprobs));
            }
            Event::Text { text, ids, .. } => {
                told.text.push_str(&text);
                told.ids.extend(ids);
            }
            Event::Call { .. } => panic!("a call that nobody asked for"),
            Event::Finished { reason, .. } => told.reason = Some(reason),
            Event::Done(usage) => told.usage = usage,
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(told)
}

/// A prompt whose answer, by [`brief`], has some words and ends by itself.
const OVER: &str = "Over the weirs";

/// An engine whose texts end soon.
fn brief() -> LocalEngine {
    sim::engine_with(SimModel::new(SimOptions {
        end_probability: 0.3,
        ..SimOptions::default()
    }))
}

fn with_ids(request: Request) -> Request {
    Request {
        token_ids: true,
        ..request
    }
}

fn stop(change: impl FnOnce(&mut Stop)) -> Stop {
    let mut stop = Stop::default();
    change(&mut stop);
    stop
}

fn spoken(tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    tokens
        .iter()
        .for_each(|&token| SimTokenizer.token_bytes(token, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn tokens_are_told() {
    let engine = brief();
    let plain = told(&engine, request(OVER, 60)).await.unwrap();
    assert_eq!((plain.prompts.len(), plain.ids.len()), (0, 0));
    let ids = told(&engine, with_ids(request(OVER, 60))).await.unwrap();
    assert_eq!((&ids.text, ids.reason), (&plain.text, plain.reason));
    assert_eq!(ids.ids.len() as u64, ids.usage.completion);
    assert_eq!(ids.ids.last(), Some(&END), "the text ended so");
    assert_eq!(spoken(&ids.ids), ids.text);
    let prompt = SimTokenizer.tokenize(OVER, Bos::Add);
    assert_eq!(ids.prompts, [(prompt, Vec::new())]);
    // Answers that are cut by the token limit, that have no tokens, and that are cut by a stop string.
    let cut = told(&engine, with_ids(request("a", 1))).await.unwrap();
    assert_eq!(cut.ids.len(), 1);
    let none = told(&engine, with_ids(request("a", 0))).await.unwrap();
    assert_eq!((none.ids.len(), none.prompts.len()), (0, 1));
    let stopped = Request {
        stop: Stop::new(vec![plain.text[..3].to_owned()]).unwrap(),
        ..with_ids(request(OVER, 60))
    };
    let stopped = told(&engine, stopped).await.unwrap();
    assert_eq!(stopped.text, "");
    assert!(!stopped.ids.is_empty());
    assert_eq!(stopped.ids.len() as u64, stopped.usage.completion);
}

#[tokio::test]
async fn several_prompts_are_told_in_turn() {
    let engine = brief();
    let prompts = ["a", "the weir", "xyz"].map(|text| Prompt::Text(text.to_owned()));
    let several = Request {
        input: Input::Prompts(prompts.to_vec()),
        choices: Choices::new(3).unwrap(),
        ..with_ids(request("", 5))
    };
    let mut events = generate(&engine, several).await.unwrap();
    let (mut told, mut ids) = (vec![false; 3], 0);
    let done = loop {
        match events.next().await.unwrap() {
            Event::Prompt { prompt, .. } => {
                assert!(
                    !std::mem::replace(&mut told[prompt as usize], true),
                    "twice"
                );
            }
            Event::Text {
                choice, ids: new, ..
            } => {
                assert!(
                    told[choice as usize / 3],
                    "a choice comes before its prompt"
                );
                ids += new.len() as u64;
            }
            Event::Done(usage) => break usage,
            Event::Finished { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ids, done.completion);
}

#[tokio::test]
async fn prompts_are_scored() {
    let engine = brief();
    let scored = |prompt: &str, top: i64, tokens| Request {
        prompt_logprobs: Some(Logprobs::new("", top).unwrap()),
        ..request(prompt, tokens)
    };
    let apart = told(&engine, scored("Over the weir", 3, 4)).await.unwrap();
    let (tokens, logprobs) = &apart.prompts[0];
    assert_eq!(tokens.len(), logprobs.len());
    assert_eq!((logprobs[0].logprob, logprobs[0].rank), (None, None));
    for (score, token) in logprobs.iter().zip(tokens) {
        assert_eq!(score.token, *token);
    }
    for score in &logprobs[1..] {
        assert_eq!(score.top.len(), 3);
        let place = score.top.iter().position(|top| top.token == score.token);
        let rank = score.rank.unwrap() as usize;
        assert!(
            place.map_or(rank > 3, |place| place + 1 == rank),
            "{score:?}"
        );
    }
    assert!(logprobs[1..].iter().any(|score| score.rank != Some(1)));
    // Scoring the prompt doesn't change the text, and an echo has the same scores.
    assert_eq!(
        apart.text,
        told(&engine, request("Over the weir", 4))
            .await
            .unwrap()
            .text
    );
    let echoed = Request {
        echo: true,
        logprobs: Some(Logprobs::CHOSEN),
        ..scored("Over the weir", 3, 0)
    };
    let mut events = generate(&engine, echoed).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Prompt { logprobs, .. } => seen.push(
                logprobs
                    .iter()
                    .map(|score| score.logprob)
                    .collect::<Vec<_>>(),
            ),
            Event::Text { logprobs, .. } => {
                assert!(logprobs.iter().all(|score| score.top.is_empty()));
                seen.push(logprobs.iter().map(|score| score.logprob).collect());
            }
            _ => {}
        }
    }
    let expected: Vec<_> = logprobs.iter().map(|score| score.logprob).collect();
    assert_eq!(seen, [expected.clone(), expected]);
    let many = Request {
        input: Input::Prompts(vec![Prompt::Text("x".repeat(4_000)); 4]),
        ..scored("", 20, 1)
    };
    let refused = told(&engine, many).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Invalid(Invalid { param, .. }) if param == "prompt_logprobs")
    );
}

#[tokio::test]
async fn what_ends_a_text() {
    let engine = brief();
    let plain = || with_ids(request("Over the weir", 40));
    let ended = told(&engine, plain()).await.unwrap();
    assert!(ended.ids.len() < 40 && ended.reason == Some(FinishReason::Stop));
    // With `ignore_eos`, the model's EOS is a token like any other.
    let ignoring = Request {
        stop: stop(|stop| stop.ignores_model = true),
        ..plain()
    };
    let on = told(&engine, ignoring).await.unwrap();
    assert_eq!((on.ids.len(), on.reason), (40, Some(FinishReason::Length)));
    assert!(on.ids.starts_with(&ended.ids) && on.text.starts_with(&ended.text));
    // Nothing ends a text before `min_tokens`.
    let longer = Request {
        stop: stop(|stop| stop.min_tokens = 30),
        ..plain()
    };
    let longer = told(&engine, longer).await.unwrap();
    assert!(longer.ids.len() > 30, "{longer:?}");
    assert!(!longer.ids[..30].contains(&END));
    let none = Request {
        stop: stop(|stop| stop.min_tokens = 40),
        ..plain()
    };
    assert_eq!(
        told(&engine, none).await.unwrap().reason,
        Some(FinishReason::Length)
    );
}

#[tokio::test]
async fn stop_tokens_and_strings() {
    let engine = sim::engine(0);
    let plain = || with_ids(request("Over the weir", 40));
    let whole = told(&engine, plain()).await.unwrap();
    let token = whole.ids[7];
    let first = whole.ids.iter().position(|&other| other == token).unwrap();
    let by_token = |change: fn(&mut Stop)| {
        let mut stop = Stop::default().with_tokens(vec![token]).unwrap();
        change(&mut stop);
        Request { stop, ..plain() }
    };
    let stopped = told(&engine, by_token(|_| {})).await.unwrap();
    assert_eq!(stopped.ids, whole.ids[..=first]);
    assert_eq!(
        (stopped.text, stopped.reason),
        (spoken(&whole.ids[..first]), Some(FinishReason::Stop))
    );
    let shown = told(&engine, by_token(|stop| stop.is_shown = true))
        .await
        .unwrap();
    assert_eq!(
        (shown.text, shown.reason),
        (spoken(&whole.ids[..=first]), Some(FinishReason::Stop))
    );
    let late = told(&engine, by_token(|stop| stop.min_tokens = 20))
        .await
        .unwrap();
    assert!(late.ids.len() > 20 && !late.ids[..20].contains(&token));
    let unknown = Request {
        stop: Stop::default().with_tokens(vec![9_999]).unwrap(),
        ..plain()
    };
    assert!(
        matches!(told(&engine, unknown).await, Err(EngineError::Invalid(Invalid { param, .. })) if param == "stop_token_ids")
    );

    let word = whole.ids[5..].iter().map(|&token| spoken(&[token]));
    let word = word.into_iter().find(|word| word.len() > 3).unwrap();
    let begin = whole.text.find(&word).unwrap();
    let by_string = |change: fn(&mut Stop)| {
        let mut stop = Stop::new(vec![word.clone()]).unwrap();
        change(&mut stop);
        Request { stop, ..plain() }
    };
    let stopped = told(&engine, by_string(|_| {})).await.unwrap();
    assert_eq!(stopped.text, whole.text[..begin]);
    let shown = told(&engine, by_string(|stop| stop.is_shown = true))
        .await
        .unwrap();
    assert_eq!(shown.text, whole.text[..begin + word.len()]);
    // The text before `min_tokens` isn't searched.
    let late = told(&engine, by_string(|stop| stop.min_tokens = 6))
        .await
        .unwrap();
    assert!(
        late.ids.len() > 6 && late.text.starts_with(&whole.text[..begin + word.len()]),
        "{late:?}"
    );
}

#[tokio::test]
async fn tokens_that_may_come() {
    let engine = sim::engine(0);
    let allowed = |tokens: &[Token]| Request {
        filter: TokenFilter::new(Some(tokens.to_vec()), Vec::new()).unwrap(),
        ..with_ids(request("Over the weir", 20))
    };
    let some = [
        SimTokenizer.tokenize(" the", Bos::Omit),
        SimTokenizer.tokenize(" fish", Bos::Omit),
    ]
    .concat();
    let answer = told(&engine, allowed(&some)).await.unwrap();
    assert_eq!(
        (answer.ids.len(), answer.reason),
        (20, Some(FinishReason::Length))
    );
    assert!(answer.ids.iter().all(|token| some.contains(token)));
    let refused = told(&engine, allowed(&[9_999])).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Invalid(Invalid { param, .. }) if param == "allowed_token_ids")
    );
    // The only allowed token is forbidden by its bias as well: no token is left.
    let fields = SamplingFields {
        logit_bias: vec![(some[0], -100.0)],
        ..SamplingFields::default()
    };
    let none = Request {
        sampling: Sampling::new(fields).unwrap(),
        ..allowed(&some[..1])
    };
    assert!(matches!(
        told(&engine, none).await,
        Err(EngineError::Invalid(_))
    ));

    let plain = || with_ids(request("Over the weir", 40));
    let whole = told(&engine, plain()).await.unwrap();
    let pair = &whole.ids[..2];
    let without = |words: Vec<String>| Request {
        filter: TokenFilter::new(None, words).unwrap(),
        ..plain()
    };
    let banned = told(&engine, without(vec![spoken(pair)])).await.unwrap();
    assert_eq!(banned.ids[0], whole.ids[0]);
    assert!(!banned.ids.windows(2).any(|two| two == pair), "{banned:?}");
    let one = spoken(&whole.ids[..1]);
    let banned = told(&engine, without(vec![one.clone()])).await.unwrap();
    assert!(!banned.ids.contains(&whole.ids[0]), "{one:?} {banned:?}");
}

#[tokio::test]
async fn long_prompts_are_cut() {
    let engine = sim::engine(0);
    let cut = |to, keep, prompt: Prompt| {
        let input = Input::Prompts(vec![prompt]);
        let truncation = Some(Truncation { to, keep });
        Request {
            input,
            truncation,
            ..with_ids(request("", 96))
        }
    };
    let check = async |to, keep, prompt: Prompt, expected: Vec<Token>| {
        let answer = told(&engine, cut(to, keep, prompt)).await.unwrap();
        assert_eq!(answer.prompts[0].0, expected);
        assert_eq!(answer.usage.prompt, expected.len() as u64);
    };
    let text = |text: &str| Prompt::Text(text.to_owned());
    let tokens = |text: &str| SimTokenizer.tokenize(text, Bos::Omit);
    let begun = |text: &str| SimTokenizer.tokenize(text, Bos::Add);
    check(
        PromptLimit::Tokens(3),
        Keep::Last,
        text("abcde"),
        begun("de"),
    )
    .await;
    check(PromptLimit::Tokens(1), Keep::Last, text("abcde"), begun("")).await;
    check(
        PromptLimit::Tokens(3),
        Keep::First,
        text("abcde"),
        begun("ab"),
    )
    .await;
    check(
        PromptLimit::Tokens(6),
        Keep::Last,
        text("abcde"),
        begun("abcde"),
    )
    .await;
    check(
        PromptLimit::Tokens(3),
        Keep::Last,
        Prompt::Tokens(tokens("abcde")),
        tokens("cde"),
    )
    .await;
    // The prompt is cut so that the answer fits beside it.
    let long = "x".repeat(5_000);
    check(
        PromptLimit::Context,
        Keep::Last,
        text(&long),
        begun(&"x".repeat(3_999)),
    )
    .await;
    let refused = told(
        &engine,
        cut(PromptLimit::Tokens(4_050), Keep::Last, text(&long)),
    )
    .await;
    assert!(matches!(refused, Err(EngineError::TooLong { .. })));
    let conversation = Request {
        input: chat(&long),
        ..cut(PromptLimit::Tokens(20), Keep::Last, text(""))
    };
    let answer = told(&engine, conversation).await.unwrap();
    assert_eq!(spoken(&answer.prompts[0].0), "xxxxxx<|assistant|>");
}

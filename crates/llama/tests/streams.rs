//! Many streams at once through the engine, compared with each prompt alone on the model.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use weir_engine::request::{Choices, OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Event, FinishReason, Input, Request, Sampling, Token, Usage};
use weir_inference::local::{LocalEngine, Options, Speculation};
use weir_inference::model::{Bos, Model, SequenceId, Tokenizer};
use weir_llama::{LlamaModel, LoadOptions};

#[path = "support/common.rs"]
mod common;
use common::{best, compute, essay, small, smollm2, split};

/// The largest accepted difference of logits: somewhat more than `examples/noise.rs` measures.
const NOISE: f32 = 1.6;
const STREAMS: usize = 32;

struct Job {
    prompt: String,
    /// Tokens to generate.
    limit: u32,
    choices: i64,
}

/// Questions of different lengths. A quarter of them share their beginning with other questions, and a quarter have two
/// choices.
fn jobs() -> Vec<Job> {
    let countries = [
        "France", "Japan", "Brazil", "Egypt", "Canada", "India", "Norway", "Kenya",
    ];
    let job = |i: usize| {
        let country = countries[i / 4];
        let prompt = match i % 4 {
            0 => format!(
                "{}. Now, a list of the largest cities of {country}:\n1.",
                essay(50)
            ),
            1 => format!("The capital of {country} is the city of"),
            2 => format!("{} But back to {country}, where people", essay(6 + i * 2)),
            _ => format!("In {country} the seasons are spring,"),
        };
        Job {
            prompt,
            limit: 4 + (i as u32 * 7) % 13,
            choices: if i % 4 == 1 { 2 } else { 1 },
        }
    };
    (0..STREAMS).map(job).collect()
}

/// The greedy answer to a prompt that is computed alone, and the tokens that could have taken each place.
struct Solo {
    pieces: Vec<Vec<u8>>,
    /// For each token, the texts of all tokens that were best within the noise.
    likely: Vec<Vec<Vec<u8>>>,
    finish: FinishReason,
}

fn piece(tokenizer: &dyn Tokenizer, token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.token_bytes(token, &mut bytes);
    bytes
}

fn solo(model: &mut LlamaModel, job: &Job) -> Solo {
    let tokenizer = model.tokenizer();
    let prompt = tokenizer.tokenize(&job.prompt, Bos::Add);
    let mut solo = Solo {
        pieces: Vec::new(),
        likely: Vec::new(),
        finish: FinishReason::Length,
    };
    let mut logits = compute(model, 0, 0, &prompt, 512);
    for at in prompt.len().. {
        let token = best(&logits);
        let enough = logits[token as usize] - NOISE;
        let likely = (0..).zip(&logits).filter(|&(_, &logit)| logit >= enough);
        solo.likely
            .push(likely.map(|(token, _)| piece(&*tokenizer, token)).collect());
        solo.pieces.push(piece(&*tokenizer, token));
        if tokenizer.is_end(token) {
            solo.finish = FinishReason::Stop;
            break;
        }
        if solo.pieces.len() == job.limit as usize {
            break;
        }
        logits = compute(model, 0, at, &[token], 1);
    }
    model.forget(SequenceId(0));
    solo
}

#[derive(Clone, Default)]
struct Choice {
    text: String,
    finish: Option<FinishReason>,
}

struct Answer {
    choices: Vec<Choice>,
    usage: Usage,
}

async fn stream(engine: &LocalEngine, job: &Job) -> Answer {
    let greedy = SamplingFields {
        temperature: Some(0.0),
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(greedy).expect("a greedy sampler"),
        choices: Choices::new(job.choices).expect("a few choices"),
        output: OutputLimit {
            tokens: Some(job.limit),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(job.prompt.clone())]))
    };
    let prepared = engine.render(request).await.expect("it fits the context");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut answer = Answer {
        choices: vec![Choice::default(); job.choices as usize],
        usage: Usage::default(),
    };
    while let Some(event) = events.next().await {
        match event {
            Event::Text { choice, text, .. } => {
                answer.choices[choice as usize].text.push_str(&text);
            }
            Event::Prompt { .. } => panic!("a prompt that nobody wants to know"),
            Event::Call { .. } => panic!("a call that nobody asked for"),
            Event::Finished { choice, reason } => {
                answer.choices[choice as usize].finish = Some(reason);
            }
            Event::Done(usage) => answer.usage = usage,
            Event::Failed(error) => panic!("{}: {error}", job.prompt),
        }
    }
    assert!(
        answer.usage.prompt > 0 && answer.usage.completion >= job.choices as u64,
        "{:?}",
        answer.usage
    );
    answer
}

/// Whether the answer is that of the prompt alone, or the same up to a token for which another one was as good.
fn check(job: &Job, solo: &Solo, answer: &Choice) -> bool {
    let whole = solo.pieces.concat();
    let text = answer.text.as_bytes();
    if String::from_utf8_lossy(&whole) == answer.text {
        assert_eq!(answer.finish, Some(solo.finish), "{}", job.prompt);
        return true;
    }
    let mut at = 0;
    for (piece, likely) in solo.pieces.iter().zip(&solo.likely) {
        let other = |other: &&Vec<u8>| *other != piece && text[at..].starts_with(other);
        if likely.iter().any(|token| other(&token)) {
            return false;
        }
        assert!(
            text[at..].starts_with(piece),
            "{:?} should be {:?}",
            answer.text,
            String::from_utf8_lossy(&whole)
        );
        at += piece.len();
    }
    panic!(
        "{:?} goes on after {:?}",
        answer.text,
        String::from_utf8_lossy(&whole)
    );
}

#[test]
fn thirty_two_streams_at_once_say_what_each_says_alone() {
    let jobs = jobs();
    let mut model = smollm2(&small());
    let solos: Vec<Solo> = jobs.iter().map(|job| solo(&mut model, job)).collect();
    drop(model);

    let unified = LoadOptions {
        cells: Some(8_192),
        sequences: None,
        ..small()
    };
    // Fewer sequences than streams: some wait, and begin in cells that others had.
    let split = LoadOptions {
        sequences: Some(24),
        ..split()
    };
    for options in [unified, split] {
        check_streams(&options, &jobs, &solos);
    }
}

fn check_streams(options: &LoadOptions, jobs: &[Job], solos: &[Solo]) {
    let engine = LocalEngine::spawn(smollm2(options), Options::new(|| Timestamp::UNIX_EPOCH));
    let engine = Arc::new(engine.expect("the engine starts"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let answers = runtime.block_on(join_all(jobs.iter().map(|job| stream(&engine, job))));
    engine.stop_and_wait();

    let mut same = 0;
    for ((job, solo), answer) in jobs.iter().zip(solos).zip(&answers) {
        let texts = answer.choices.iter();
        same += texts.filter(|choice| check(job, solo, choice)).count();
    }
    let texts: usize = answers.iter().map(|answer| answer.choices.len()).sum();
    assert_eq!(texts, STREAMS + STREAMS / 4);
    assert!(
        same >= texts / 2,
        "only {same} of {texts} texts are those of each prompt alone"
    );
}

/// Answers that repeat their prompts, one alone and three at once: speculative decoding doesn't change them, and some draft
/// tokens are accepted.
#[test]
fn drafts_do_not_change_what_is_said() {
    let verse = "The river runs over the old stone weir, and under the mill wheel, deep and slow. ";
    let jobs: Vec<Job> = ["", "One. ", "Two. ", "Three. "]
        .map(|start| Job {
            prompt: format!("{start}{}", verse.repeat(4)),
            limit: 48,
            choices: 1,
        })
        .into();
    let mut model = smollm2(&small());
    let solos: Vec<Solo> = jobs.iter().map(|job| solo(&mut model, job)).collect();
    drop(model);
    let mut options = Options::new(|| Timestamp::UNIX_EPOCH);
    options.speculation = Speculation::Ngram;
    let engine = LocalEngine::spawn(smollm2(&small()), options).expect("the engine starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let alone = runtime.block_on(stream(&engine, &jobs[0]));
    let answers = runtime.block_on(join_all(jobs[1..].iter().map(|job| stream(&engine, job))));
    let drafted = engine.drafted();
    engine.stop_and_wait();
    for ((job, solo), answer) in jobs.iter().zip(&solos).zip([alone].iter().chain(&answers)) {
        check(job, solo, &answer.choices[0]);
    }
    // The number of draft tokens depends on how long steps take on this machine at this time.
    assert!(drafted.accepted > 0, "{drafted:?}");
}

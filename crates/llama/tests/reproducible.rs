//! Reproducible models: logits are the same to the bit, and texts to the byte, whatever else is served.

use futures::future::join_all;
use jiff::Timestamp;
use weir_engine::request::{Choices, OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Event, Input, Request, Sampling, Token};
use weir_inference::local::{LocalEngine, Options};
use weir_inference::model::{Model, SequenceId};
use weir_llama::{LlamaModel, LoadOptions};

#[path = "support/common.rs"]
mod common;
use common::{essay, gemma3, rows, smollm2, tokens};

/// The threads of a machine with two cores.
const THREADS: u32 = 2;

fn options(threads: u32) -> LoadOptions {
    LoadOptions {
        threads: Some(threads),
        context_tokens: Some(1_024),
        sequences: Some(5),
        reproducible: true,
        ..LoadOptions::default()
    }
}

const CHUNK: usize = 64;

/// The logits after the prompt and after each token of `more`. `between` is called between any two steps.
fn run(
    model: &mut LlamaModel,
    sequence: u32,
    from: usize,
    (prompt, more): (&[Token], &[Token]),
    mut between: impl FnMut(&mut LlamaModel),
) -> Vec<Vec<f32>> {
    let chunked = prompt.len() - 1;
    let mut at = from;
    while at < chunked {
        let count = CHUNK.min(chunked - at);
        let step = rows(sequence, at, &prompt[at..at + count]);
        model.decode(&step).expect("the step fits");
        at += count;
        between(model);
    }
    let alone = prompt[chunked..].iter().chain(more);
    alone
        .zip(chunked..)
        .map(|(&token, at)| {
            model
                .decode(&rows(sequence, at, &[token]))
                .expect("the step fits");
            let logits = model.logits(0).to_vec();
            between(model);
            logits
        })
        .collect()
}

#[track_caller]
fn assert_same(what: &str, a: &[Vec<f32>], b: &[Vec<f32>]) {
    let bits = |logits: &[Vec<f32>]| -> Vec<u32> {
        logits
            .iter()
            .flatten()
            .map(|logit| logit.to_bits())
            .collect()
    };
    assert_eq!(a.len(), b.len());
    let apart = common::distance(&a.concat(), &b.concat());
    assert!(bits(a) == bits(b), "{what}: {apart} apart");
}

/// Compares runs with prompts longer than Gemma's window, and longer than attention computes in one part.
fn same_bits(mut model: LlamaModel) {
    let all = tokens(&model, &essay(800));
    let (prompt, more) = (&all[..600], &all[600..606]);
    let alone = run(&mut model, 0, 0, (prompt, more), |_| ());

    let mut steps = 0;
    let neighbour = |model: &mut LlamaModel| {
        // Chunks of a prompt in one sequence, and one token at a time in another.
        let step = rows(1, steps * 7, &all[steps..steps + 7]);
        model.decode(&step).expect("the step fits");
        let step = rows(4, steps, &all[50 + steps..51 + steps]);
        model.decode(&step).expect("the step fits");
        steps += 1;
    };
    let beside = run(&mut model, 2, 0, (prompt, more), neighbour);
    assert_same("beside others", &alone, &beside);

    // A fork from before its parent's end, into cells that another sequence had.
    model.forget(SequenceId(1));
    model.fork(SequenceId(2), SequenceId(1), 599);
    model.forget(SequenceId(2));
    let forked = run(&mut model, 1, 599, (prompt, more), |_| ());
    assert_same("forked", &alone, &forked);

    // A failed step leaves nothing; cells with remains of a longer sequence don't matter.
    let too_much = rows(2, 0, &vec![0; 65]);
    model
        .decode(&too_much)
        .expect_err("a step is a chunk at most");
    run(&mut model, 2, 0, (&all[100..800], &[]), |_| ());
    model.forget(SequenceId(2));
    let again = run(&mut model, 2, 0, (prompt, more), |_| ());
    assert_same("where another was", &alone, &again);

    let mut two = rows(0, 606, &all[..1]);
    two.extend(rows(1, 606, &all[..1]));
    model.decode(&two).expect_err("a step is of one sequence");
}

#[test]
fn the_same_bits() {
    for threads in [1, THREADS] {
        same_bits(smollm2(&options(threads)));
    }
}

#[test]
fn the_same_bits_with_a_sliding_window() {
    if let Some(model) = gemma3(&options(THREADS)) {
        same_bits(model);
    }
}

#[derive(Clone)]
struct Job {
    words: usize,
    temperature: f64,
    limit: u32,
    choices: i64,
}

async fn texts(engine: &LocalEngine, job: &Job) -> Vec<String> {
    let fields = SamplingFields {
        temperature: Some(job.temperature),
        seed: Some(11),
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(fields).expect("a sampler"),
        choices: Choices::new(job.choices).expect("a few choices"),
        output: OutputLimit {
            tokens: Some(job.limit),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(essay(job.words))]))
    };
    let prepared = engine.render(request).await.expect("it fits");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut texts = vec![String::new(); job.choices as usize];
    while let Some(event) = events.next().await {
        match event {
            Event::Text { choice, text, .. } => texts[choice as usize].push_str(&text),
            Event::Failed(error) => panic!("{error}"),
            Event::Prompt { .. } | Event::Call { .. } | Event::Finished { .. } | Event::Done(_) => {
            }
        }
    }
    texts
}

const TOKENS: u32 = 32;

fn same_texts(load: impl Fn() -> LlamaModel) {
    let start = || LocalEngine::spawn(load(), Options::new(|| Timestamp::UNIX_EPOCH));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let job = |words, temperature, limit, choices| Job {
        words,
        temperature,
        limit,
        choices,
    };
    let targets = [
        job(150, 0.0, TOKENS, 1),
        job(150, 1.0, TOKENS, 1),
        job(40, 1.0, TOKENS, 1),
    ];
    let engine = start().expect("the engine starts");
    let alone: Vec<String> = targets
        .iter()
        .map(|target| runtime.block_on(texts(&engine, target)).concat())
        .collect();
    engine.stop_and_wait();
    drop(engine);
    assert!(alone.iter().all(|text| text.len() > 20), "{alone:?}");
    assert_ne!(alone[0], alone[1]);

    // After a restart, beside eight other requests that come and go, and beside several choices of the same prompts: more
    // than there are sequences.
    let engine = start().expect("the engine starts");
    let noise = (0..8).map(|i| job(3 + 17 * i, 1.0, 5 + 3 * i as u32, 1));
    let many = [job(150, 1.0, TOKENS, 2), job(40, 1.0, TOKENS, 3)];
    let crowd: Vec<Job> = noise.chain(many).chain(targets).collect();
    let answers = runtime.block_on(join_all(crowd.iter().map(|job| texts(&engine, job))));
    engine.stop_and_wait();
    let told: Vec<&String> = answers[10..].iter().map(|choices| &choices[0]).collect();
    assert_eq!(told, alone.iter().collect::<Vec<_>>());
    assert_eq!([&answers[8][0], &answers[9][0]], [&alone[1], &alone[2]]);
}

#[test]
fn the_same_text_alone_and_in_a_crowd() {
    same_texts(|| smollm2(&options(THREADS)));
}

#[test]
fn the_same_text_with_a_sliding_window() {
    if gemma3(&options(THREADS)).is_some() {
        same_texts(|| gemma3(&options(THREADS)).expect("it was there"));
    }
}

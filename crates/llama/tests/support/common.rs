//! Models for tests, and helpers that compute with them.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::allow_attributes,
    reason = "each test file uses its own part"
)]

use std::path::PathBuf;

use weir_engine::request::{Choices, OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Engine, Event, Input, Request, Sampling, Token, Usage};
use weir_inference::local::LocalEngine;
use weir_inference::model::{BatchToken, Bos, Model, SequenceId};
use weir_llama::{KvLayout, LlamaModel, LoadOptions, load};

mod models;
pub(crate) use models::{models, smollm2_file};

pub fn smollm2(options: &LoadOptions) -> LlamaModel {
    load(&smollm2_file(), options).expect("the demo model loads")
}

/// A model with a sliding window, or `None` if its large file isn't there.
#[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
pub fn gemma3(options: &LoadOptions) -> Option<LlamaModel> {
    let path = models().join("gemma-3-270m-q4_k_m.gguf");
    if !path.is_file() {
        eprintln!("{} is missing: nothing is tested here", path.display());
        return None;
    }
    Some(load(&path, options).expect("the model loads"))
}

/// Options with a cache for a few short sequences, which is allocated quickly, and one thread: tests run in parallel, and
/// the threads of a larger pool would spin while they wait for each other.
pub fn small() -> LoadOptions {
    LoadOptions {
        threads: Some(1),
        cells: Some(2_048),
        sequences: Some(40),
        ..LoadOptions::default()
    }
}

/// The same with split cells.
pub fn split() -> LoadOptions {
    LoadOptions {
        cells: None,
        context_tokens: Some(512),
        sequences: Some(6),
        kv_layout: KvLayout::Split,
        ..small()
    }
}

pub fn tokens(model: &LlamaModel, text: &str) -> Vec<Token> {
    model.tokenizer().tokenize(text, Bos::Add)
}

pub fn text(model: &LlamaModel, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    tokens
        .iter()
        .for_each(|&token| model.tokenizer().token_bytes(token, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tokens of a batch that continue a sequence at `position`; the last one is an output.
pub fn rows(sequence: u32, position: usize, tokens: &[Token]) -> Vec<BatchToken> {
    let row = |(i, &token)| BatchToken {
        token,
        position: (position + i) as u32,
        sequence: SequenceId(sequence),
        output: i + 1 == tokens.len(),
    };
    tokens.iter().enumerate().map(row).collect()
}

/// Computes tokens in steps of at most `chunk`, and at most the model's limit. Returns the logits after the last token.
pub fn compute(
    model: &mut LlamaModel,
    sequence: u32,
    position: usize,
    tokens: &[Token],
    chunk: usize,
) -> Vec<f32> {
    let mut done = 0;
    let mut logits = Vec::new();
    let chunk = chunk.min(model.capacity().rows as usize);
    for part in tokens.chunks(chunk) {
        model
            .decode(&rows(sequence, position + done, part))
            .expect("the step fits");
        done += part.len();
        logits = model.logits(part.len() - 1).to_vec();
    }
    logits
}

pub fn best(logits: &[f32]) -> Token {
    let best = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .expect("a vocabulary");
    best.0 as Token
}

/// The difference between the best and the second-best logit.
pub fn lead(logits: &[f32]) -> f32 {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[0] - sorted[1]
}

/// The greedy continuation after `logits`.
pub fn greedy(
    model: &mut LlamaModel,
    sequence: u32,
    position: usize,
    logits: &[f32],
    count: usize,
) -> Vec<Token> {
    let mut tokens = vec![best(logits)];
    while tokens.len() < count {
        let at = position + tokens.len() - 1;
        let logits = compute(
            model,
            sequence,
            at,
            &[*tokens.last().expect("one is there")],
            1,
        );
        tokens.push(best(&logits));
    }
    tokens
}

pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// A text of this many words that doesn't repeat itself.
pub fn essay(words: usize) -> String {
    let vocabulary = [
        "river", "stone", "morning", "engine", "quiet", "market", "seven", "letters", "under",
        "the", "old", "bridge", "carried", "slowly", "a", "question", "about", "weather", "and",
        "copper", "lamps",
    ];
    let mut state = 7u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        vocabulary[(state >> 16) as usize % vocabulary.len()]
    };
    (0..words).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// Loads a model of `fixtures/`, which has random weights.
pub fn tiny(name: &str, options: &LoadOptions) -> LlamaModel {
    load(&tiny_file(name), options).expect("the fixture loads")
}

pub fn tiny_file(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    PathBuf::from(folder).join(format!("tiny-{name}.gguf"))
}

/// The greedy answers of an engine to a prompt.
pub async fn answers(
    engine: &LocalEngine,
    prompt: &str,
    choices: i64,
    tokens: u32,
) -> (Vec<String>, Usage) {
    let greedy = SamplingFields {
        temperature: Some(0.0),
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(greedy).expect("a greedy sampler"),
        choices: Choices::new(choices).expect("a few choices"),
        output: OutputLimit {
            tokens: Some(tokens),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(prompt.to_owned())]))
    };
    let prepared = engine.render(request).await.expect("it fits the context");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut texts = vec![String::new(); choices as usize];
    while let Some(event) = events.next().await {
        match event {
            Event::Text { choice, text, .. } => texts[choice as usize].push_str(&text),
            Event::Prompt { .. } | Event::Finished { .. } | Event::Call { .. } => {}
            Event::Done(usage) => return (texts, usage),
            Event::Failed(error) => panic!("{error}"),
        }
    }
    panic!("the last event is missing")
}

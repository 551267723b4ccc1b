//! Embeddings of an encoder, compared with a forward pass in numpy (`fixtures/tiny_bert.py`), and of a generating model,
//! compared with its own in steps of other shapes.

use std::path::Path;
use std::sync::Arc;

use weir_engine::Token;
use weir_inference::model::{Bos, Embedder};
use weir_llama::{EmbedOptions, LlamaEmbedder, LoadOptions, ModelFile, Pooling, load, open};

#[path = "support/common.rs"]
mod common;
use common::{essay, smollm2_file};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn tiny_bert() -> ModelFile {
    open(&Path::new(FIXTURES).join("tiny-bert.gguf")).expect("the fixture loads")
}

fn options(pooling: Option<Pooling>) -> EmbedOptions {
    EmbedOptions {
        threads: Some(1),
        threads_min: None,
        input_tokens_max: None,
        pooling,
    }
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    vector.iter().map(|number| number / length).collect()
}

#[track_caller]
fn assert_near(a: &[f32], b: &[f32], tolerance: f32) {
    let apart = common::distance(a, b);
    assert!(apart < tolerance, "{apart} apart");
}

#[test]
fn an_encoder_says_what_numpy_says() {
    let text = std::fs::read_to_string(Path::new(FIXTURES).join("tiny-bert.json"));
    let cases: serde_json::Value =
        serde_json::from_str(&text.expect("the fixture")).expect("the fixture is JSON");
    let cases = cases.as_array().expect("a list");
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        let numbers = value.as_array().expect("a list").iter();
        numbers
            .map(|number| number.as_f64().expect("a number"))
            .collect()
    };
    for (name, pooling) in [
        ("mean", None),
        ("first", Some(Pooling::First)),
        ("last", Some(Pooling::Last)),
    ] {
        let mut embedder = tiny_bert()
            .embedder(&options(pooling))
            .expect("an embedder");
        let facts = embedder.facts();
        assert_eq!((facts.dimensions, facts.input_tokens_max), (32, 64));
        let inputs: Vec<Arc<[Token]>> = cases
            .iter()
            .map(|case| {
                let text = case["text"].as_str().expect("a text");
                let mut tokens = embedder.tokenizer().tokenize(text, Bos::Add);
                tokens.extend(facts.last);
                let expected = numbers(&case["tokens"]);
                assert_eq!(
                    tokens
                        .iter()
                        .map(|&token| f64::from(token))
                        .collect::<Vec<_>>(),
                    expected
                );
                tokens.into()
            })
            .collect();
        let vectors = embedder.embed(&inputs).expect("they fit a step");
        for (case, vector) in cases.iter().zip(&vectors) {
            let expected: Vec<f32> = numbers(&case[name]).iter().map(|&n| n as f32).collect();
            // The kernels' tables (of GELU, for example) have 16-bit numbers.
            assert_near(&unit(vector), &expected, 2e-3);
        }
    }
}

#[test]
fn an_encoder_does_not_generate() {
    let file = tiny_bert();
    assert!(file.is_embedder());
    let refused = file
        .model(&LoadOptions::default())
        .expect_err("it has no next token");
    assert!(
        refused.to_string().contains("made for embeddings"),
        "{refused}"
    );
}

fn demo() -> LlamaEmbedder {
    let file = open(&smollm2_file()).expect("the demo model");
    assert!(!file.is_embedder());
    let refused = file.embedder(&options(None)).expect_err("nobody said how");
    assert!(refused.to_string().contains("how to pool"), "{refused}");
    file.embedder(&options(Some(Pooling::Mean)))
        .expect("an embedder")
}

#[test]
fn the_mean_of_a_model_that_generates() {
    let mut embedder = demo();
    let tokens: Vec<Token> = embedder.tokenizer().tokenize(&essay(60), Bos::Add);
    let tokens = &tokens[..12];
    let mean = embedder.embed(&[tokens.into()]).expect("it fits");
    // Token by token: the last token's vector of each prefix.
    let mut last = open(&smollm2_file())
        .and_then(|file| file.embedder(&options(Some(Pooling::Last))))
        .expect("an embedder");
    let mut sum = vec![0.0f32; 576];
    for end in 1..=tokens.len() {
        let vectors = last.embed(&[tokens[..end].into()]).expect("it fits");
        sum.iter_mut()
            .zip(&vectors[0])
            .for_each(|(sum, number)| *sum += number);
    }
    assert_near(&unit(&mean[0]), &unit(&sum), 0.02);
}

/// Other inputs in the same step, and splitting a long input into steps, change vectors by no more than the kernels' noise.
#[test]
fn inputs_do_not_see_each_other() {
    let mut embedder = demo();
    let tokens: Vec<Token> = embedder.tokenizer().tokenize(&essay(500), Bos::Add);
    let inputs: Vec<Arc<[Token]>> = vec![
        tokens[..20].into(),
        tokens[20..23].into(),
        tokens[100..130].into(),
    ];
    let together = embedder.embed(&inputs).expect("they fit");
    for (input, vector) in inputs.iter().zip(&together) {
        let alone = embedder
            .embed(std::slice::from_ref(input))
            .expect("it fits");
        assert_near(&unit(&alone[0]), &unit(vector), 0.02);
    }
    assert!(embedder.facts().rows < 400, "{:?}", embedder.facts());
    let long: Arc<[Token]> = tokens[..400].into();
    let vectors = embedder.embed(&[long]).expect("several steps");
    assert!(vectors[0].iter().all(|number| number.is_finite()));
    embedder
        .embed(&[vec![0; 3_000].into()])
        .expect_err("too long");
    embedder
        .embed(&[vec![60_000].into()])
        .expect_err("no such token");
}

/// A file serves both: computing embeddings doesn't disturb a generating model on the same weights.
#[test]
fn a_file_gives_both() {
    let file = open(&smollm2_file()).expect("the demo model");
    let mut embedder = file
        .embedder(&options(Some(Pooling::Mean)))
        .expect("an embedder");
    let mut model = file.model(&common::small()).expect("a model");
    let prompt = common::tokens(&model, "The capital of France is");
    let logits = common::compute(&mut model, 0, 0, &prompt, 64);
    embedder.embed(&[prompt.clone().into()]).expect("it fits");
    let mut other = load(&smollm2_file(), &common::small()).expect("a model");
    assert_eq!(logits, common::compute(&mut other, 0, 0, &prompt, 64));
}

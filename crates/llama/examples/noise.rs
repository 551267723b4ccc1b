//! Measures how much the logits of the same tokens differ with the shape of the steps that computed them.
//!
//! `cargo run --release -p weir-llama --example noise -- models/*.gguf`

#![expect(clippy::print_stdout, reason = "a report for a person")]

use std::path::Path;

use weir_engine::Token;
use weir_inference::model::{BatchToken, Bos, Model, SequenceId};
use weir_llama::{LlamaModel, LoadOptions, load};

const PROMPT: usize = 128;
/// Tokens that are decoded after the prompt, one step each.
const STEPS: usize = 24;

fn main() {
    let text = include_str!("../src/model.rs").repeat(2);
    for path in std::env::args().skip(1) {
        let options = LoadOptions {
            cells: Some(4_096),
            sequences: Some(34),
            ..LoadOptions::default()
        };
        let mut model = match load(Path::new(&path), &options) {
            Ok(model) => model,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        let tokens = model.tokenizer().tokenize(&text, Bos::Add);
        println!("{path}: largest difference of a logit, and how often another token is the best");
        chunks(&mut model, &tokens);
        batches(&mut model, &tokens);
    }
}

/// Compares a prompt in several steps with the whole prompt in one step.
fn chunks(model: &mut LlamaModel, tokens: &[Token]) {
    let whole = run(model, tokens, PROMPT, 1);
    println!(
        "  again, in the same shape       {}",
        difference(&whole, &run(model, tokens, PROMPT, 1))
    );
    for chunk in [1, 4, 7, 32, 64, 128] {
        let chunked = run(model, tokens, chunk, 1);
        println!(
            "  prompt in steps of {chunk:3} rows    {}",
            difference(&whole, &chunked)
        );
    }
}

/// Compares decoding beside other sequences with decoding alone.
fn batches(model: &mut LlamaModel, tokens: &[Token]) {
    let alone = run(model, tokens, PROMPT, 1);
    for rows in [2, 3, 4, 8, 16, 32] {
        let batched = run(model, tokens, PROMPT, rows);
        println!(
            "  decoding in steps of {rows:3} rows  {}",
            difference(&alone, &batched)
        );
    }
}

/// The logits after the prompt and after each of the next tokens, which `beside` sequences decode at once.
fn run(model: &mut LlamaModel, tokens: &[Token], chunk: usize, beside: u32) -> Vec<Vec<f32>> {
    let row = |at: usize, sequence, output| BatchToken {
        token: tokens[at],
        position: at as u32,
        sequence: SequenceId(sequence),
        output,
    };
    let mut all = Vec::new();
    let positions: Vec<usize> = (0..PROMPT).collect();
    for part in positions.chunks(chunk) {
        let step: Vec<BatchToken> = part
            .iter()
            .map(|&at| row(at, 0, at == PROMPT - 1))
            .collect();
        model.decode(&step).expect("the prompt fits");
    }
    all.push(model.logits((PROMPT - 1) % chunk).to_vec());
    (1..beside).for_each(|to| model.fork(SequenceId(0), SequenceId(to), PROMPT as u32));
    for at in PROMPT..PROMPT + STEPS {
        let step: Vec<BatchToken> = (0..beside)
            .map(|sequence| row(at, sequence, true))
            .collect();
        model.decode(&step).expect("the tokens fit");
        all.push(model.logits(beside as usize - 1).to_vec());
    }
    (0..beside).for_each(|sequence| model.forget(SequenceId(sequence)));
    all
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> String {
    let largest = a
        .iter()
        .flatten()
        .zip(b.iter().flatten())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    let flips = a.iter().zip(b).filter(|(a, b)| best(a) != best(b)).count();
    format!("{largest:.4}  {flips}/{}", a.len())
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

//! The cost of sampling a token, in microseconds: `cargo run --release -p weir-engine --example sampling_cost`.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::time::Instant;

use weir_engine::Sampling;
use weir_engine::request::SamplingFields;
use weir_inference::sampler::{self, Sampler, Scratch};

const TOKENS: u32 = 400;

fn main() {
    for vocabulary in [49_152, 262_144] {
        let logits: Vec<f32> = (0..vocabulary).map(logit).collect();
        println!("vocabulary {vocabulary}");
        measure("greedy", &logits, |fields| fields.temperature = Some(0.0));
        measure("temperature 1", &logits, |_| ());
        measure("top_k 40", &logits, |fields| fields.top_k = Some(40));
        measure("top_p 0.9 of few", &logits, |fields| {
            fields.top_p = Some(0.9);
            fields.temperature = Some(0.7);
        });
        measure("top_p 0.9 of many", &logits, |fields| {
            fields.top_p = Some(0.9);
        });
        measure("min_p 0.05", &logits, |fields| fields.min_p = Some(0.05));
        measure("top_k 40, penalties", &logits, |fields| {
            fields.top_k = Some(40);
            fields.repetition_penalty = Some(1.1);
        });
        for top in [0, 5, 20] {
            score(top, &logits);
        }
    }
}

/// The cost that log-probabilities add to a token.
fn score(top: usize, logits: &[f32]) {
    let mut scratch = Scratch::default();
    let mut score = || {
        let scores = (0..TOKENS).map(|token| sampler::score(logits, token, top, &mut scratch));
        scores.map(|score| f64::from(score.logprob)).sum::<f64>()
    };
    let warm = score();
    let start = Instant::now();
    let sum = score() + warm;
    let cost = start.elapsed().as_secs_f64() * 1e6 / f64::from(TOKENS);
    let name = format!("logprobs, top {top}");
    println!("  {name:<22}{cost:>8.1} µs   (checksum {sum:.0})");
}

fn measure(name: &str, logits: &[f32], change: impl FnOnce(&mut SamplingFields)) {
    let mut fields = SamplingFields::default();
    change(&mut fields);
    let sampling = Sampling::new(fields).expect("values in range");
    let prompt: Vec<u32> = (0..2000).map(|i| i * 23).collect();
    let mut sampler = Sampler::new(&sampling, &prompt, 0);
    let mut scratch = Scratch::default();
    let mut sample = || {
        (0..TOKENS)
            .map(|_| u64::from(sampler.sample(logits, &mut scratch)))
            .sum::<u64>()
    };
    let warm = sample();
    let start = Instant::now();
    let sum = sample() + warm;
    let cost = start.elapsed().as_secs_f64() * 1e6 / f64::from(TOKENS);
    println!("  {name:<22}{cost:>8.1} µs   (checksum {sum})");
}

/// Bell-shaped like a model's, with a handful of likely tokens.
fn logit(token: u32) -> f32 {
    let noise = |salt: u32| {
        (token.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8) as f32 / 16_777_216.0
    };
    let bell = noise(1) + noise(40_503 << 12) + noise(0x9e37_79b9) - 1.5;
    let likely = if token % 9973 == 5 {
        9.0 + noise(7) * 3.0
    } else {
        0.0
    };
    bell * 4.0 + likely
}

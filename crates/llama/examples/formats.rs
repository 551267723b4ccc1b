//! Compares the speed of files with the same weights in several formats: prefill, and decode of 1, 8 and 32 streams, in tokens
//! per second. Files take turns, so that other work on the machine affects them alike.
//!
//! `cargo run --release -p weir-llama --example formats -- 5 MODEL.gguf…` (5 rounds)

#![expect(clippy::print_stdout, reason = "a report for a person")]
#![expect(
    clippy::disallowed_types,
    reason = "time is measured, outside of tokio's clock"
)]

use std::path::Path;
use std::time::Instant;

use weir_inference::model::{BatchToken, Model, SequenceId};
use weir_llama::{LlamaModel, LoadOptions, load};

const PROMPT: u32 = 128;
/// Tokens in the cache of each stream.
const DEPTH: u32 = 128;
/// Numbers of streams, each with the number of steps that take about the same time.
const STREAMS: [(u32, u32); 3] = [(1, 24), (8, 10), (32, 6)];

/// Tokens per second of a prompt, and for each of `STREAMS`.
type Rates = [f64; 1 + STREAMS.len()];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.expect("the number of rounds");
    let mut models: Vec<(String, LlamaModel, Vec<Rates>)> = arguments
        .map(|path| {
            let options = LoadOptions {
                cells: Some(8_192),
                sequences: Some(33),
                ..LoadOptions::default()
            };
            let mut model = load(Path::new(&path), &options).expect("the model loads");
            measure(&mut model);
            (path, model, Vec::new())
        })
        .collect();
    for _ in 0..rounds {
        for (_, model, rates) in &mut models {
            rates.push(measure(model));
        }
    }
    println!("tokens/s, median (minimum to maximum) of {rounds} rounds: prompt, 1, 8, 32 streams");
    for (path, _, rates) in models {
        let kinds = (0..1 + STREAMS.len()).map(|kind| {
            let mut of: Vec<f64> = rates.iter().map(|rates| rates[kind]).collect();
            of.sort_by(f64::total_cmp);
            let (median, last) = (of[of.len() / 2], of[of.len() - 1]);
            format!("{median:6.1} ({:.0} to {last:.0})", of[0])
        });
        println!("{}  {path}", kinds.collect::<Vec<_>>().join("  "));
    }
}

fn measure(model: &mut LlamaModel) -> Rates {
    let prompt = |sequence, tokens: std::ops::Range<u32>| -> Vec<BatchToken> {
        let end = tokens.end;
        let row = |position| BatchToken {
            token: 500 + position * 7 % 900,
            position,
            sequence: SequenceId(sequence),
            output: position + 1 == end,
        };
        tokens.map(row).collect()
    };
    let timed = |model: &mut LlamaModel, rows: &[BatchToken]| {
        let begin = Instant::now();
        model.decode(rows).expect("the step fits");
        begin.elapsed().as_secs_f64()
    };
    let mut rates = [0.0; 1 + STREAMS.len()];
    rates[0] = f64::from(PROMPT) / timed(model, &prompt(32, 0..PROMPT));
    model.forget(SequenceId(32));
    for (rate, (streams, steps)) in rates[1..].iter_mut().zip(STREAMS) {
        timed(model, &prompt(0, 0..DEPTH));
        (1..streams).for_each(|to| model.fork(SequenceId(0), SequenceId(to), DEPTH));
        let mut took = 0.0;
        for step in DEPTH..DEPTH + steps {
            let rows = (0..streams).flat_map(|sequence| prompt(sequence, step..step + 1));
            took += timed(model, &rows.collect::<Vec<_>>());
        }
        *rate = f64::from(streams * steps) / took;
        (0..streams).for_each(|sequence| model.forget(SequenceId(sequence)));
    }
    rates
}

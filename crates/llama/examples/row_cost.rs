//! Measures the cost of draft tokens: how long a step takes by the number of tokens of one stream, each with its logits.
//!
//! `cargo run --release -p weir-llama --example row_cost -- 2 models/*.gguf` (2 threads)

#![expect(clippy::print_stdout, reason = "a report for a person")]
#![expect(
    clippy::disallowed_types,
    reason = "time is measured, outside of tokio's clock"
)]

use std::path::Path;
use std::time::Instant;

use weir_inference::model::{BatchToken, Bos, Model, SequenceId};
use weir_llama::{LoadOptions, load};

const PROMPT: usize = 400;
/// Tokens of the prompt per step.
const PIECE: usize = 100;
const ROUNDS: usize = 15;

fn main() {
    let text = include_str!("../src/model.rs");
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    for path in arguments {
        let options = LoadOptions {
            threads,
            cells: Some(4_096),
            ..LoadOptions::default()
        };
        let mut model = load(Path::new(&path), &options).expect("the model loads");
        let tokens = model.tokenizer().tokenize(text, Bos::Add);
        let step = |from: usize, to: usize| -> Vec<BatchToken> {
            let rows = from..to;
            rows.map(|at| BatchToken {
                token: tokens[at],
                position: at as u32,
                sequence: SequenceId(0),
                output: from >= PROMPT,
            })
            .collect()
        };
        for from in (0..PROMPT).step_by(PIECE) {
            let piece = step(from, from + PIECE);
            model.decode(&piece).expect("the prompt fits");
        }
        println!("{path}: rows of a step, its time in ms (median), as many times that of one row");
        let sizes = [1, 2, 3, 4, 5, 6, 8, 12, 16];
        let mut times = sizes.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (rows, times) in sizes.iter().zip(&mut times) {
                let begin = Instant::now();
                model.decode(&step(PROMPT, PROMPT + rows)).expect("it fits");
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                model.truncate(SequenceId(0), PROMPT as u32);
            }
        }
        let medians = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        for (rows, time) in sizes.iter().zip(medians) {
            println!("  {rows:2}  {time:6.1}  {:4.2}", time / medians[0]);
        }
    }
}

//! Measures the gain from n-gram speculative decoding: tokens per second of some streams at once, with and without, in one run. The
//! texts are code that is repeated with a rename, a passage that is quoted, and a story at temperature 1, which repeats little.
//!
//! `cargo run --release -p weir-llama --example speculation -- 2 3 models/SmolLM2*.gguf` (2 threads, 3 rounds)

#![expect(clippy::print_stdout, reason = "a report for a person")]
#![expect(
    clippy::disallowed_types,
    reason = "time is measured, outside of tokio's clock"
)]

use std::path::Path;
use std::time::Instant;

use futures::future::join_all;
use jiff::Timestamp;
use weir_engine::request::{OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Event, Input, Request, Sampling};
use weir_inference::local::{LocalEngine, Options, Speculation};
use weir_llama::{LoadOptions, load};

/// Tokens of each stream.
const TOKENS: u32 = 64;
const STREAMS: [u32; 3] = [1, 4, 8];
const MODES: [Speculation; 2] = [Speculation::Off, Speculation::Ngram];

const CODE: &str = "def total_price(items, tax_rate):\n    subtotal = 0\n    for item in items:\n        subtotal += item.price * item.quantity\n    tax = subtotal * tax_rate\n    if subtotal > 100:\n        tax = tax * 0.9\n    return subtotal + tax\n";
const PASSAGE: &str = "The weir at Greenfield was built in 1794 to feed the corn mill. It is forty metres long and two metres high, and was made of blocks of sandstone from the quarry above the village. In 1927 a flood carried away its eastern half, which was rebuilt in concrete within a year.";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || {
        arguments
            .next()
            .and_then(|number| number.parse::<u32>().ok())
    };
    let (threads, rounds) = (number(), number().unwrap_or(3));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for path in arguments {
        println!("{path}: tokens/s without and with drafts, median of {rounds} rounds");
        let options = LoadOptions {
            threads,
            ..LoadOptions::default()
        };
        let engines = MODES.map(|speculation| {
            let model = load(Path::new(&path), &options).expect("the model loads");
            let mut options = Options::new(|| Timestamp::UNIX_EPOCH);
            options.speculation = speculation;
            LocalEngine::spawn(model, options).expect("the engine starts")
        });
        for work in ["code", "quote", "story"] {
            for streams in STREAMS {
                let mut rates = [Vec::new(), Vec::new()];
                for round in 0..rounds {
                    for (engine, rates) in engines.iter().zip(&mut rates) {
                        let begin = Instant::now();
                        let all = (0..streams).map(|i| stream(engine, work, round * 8 + i));
                        let tokens: u64 = runtime.block_on(join_all(all)).iter().sum();
                        rates.push(tokens as f64 / begin.elapsed().as_secs_f64());
                    }
                }
                let [without, with] = rates.map(|mut rates| {
                    rates.sort_by(f64::total_cmp);
                    rates[rates.len() / 2]
                });
                let ratio = with / without;
                println!("  {work:5}  {streams} streams  {without:6.1} {with:6.1}  {ratio:4.2}");
            }
        }
        println!("  {:?}", engines[1].drafted());
        engines.iter().for_each(LocalEngine::stop_and_wait);
    }
}

/// Runs a stream, and returns the number of tokens that were generated.
async fn stream(engine: &LocalEngine, work: &str, number: u32) -> u64 {
    let (prompt, temperature) = match work {
        "code" => (
            format!(
                "{CODE}\nRepeat this function, with `items` renamed to `goods{number}`. Give only the code."
            ),
            0.0,
        ),
        "quote" => (
            format!("{PASSAGE}\n\nQuestion {number}: repeat the passage word for word."),
            0.0,
        ),
        _ => (format!("Tell me a story about the number {number}."), 1.0),
    };
    let fields = SamplingFields {
        temperature: Some(temperature),
        seed: Some(i64::from(number)),
        ..SamplingFields::default()
    };
    let text = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n");
    let request = Request {
        sampling: Sampling::new(fields).expect("plain sampling"),
        output: OutputLimit {
            tokens: Some(TOKENS),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(text)]))
    };
    let prepared = engine.render(request).await.expect("it fits the context");
    let mut events = engine.start(prepared).expect("it is accepted");
    while let Some(event) = events.next().await {
        match event {
            Event::Done(usage) => return usage.completion,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    unreachable!("a generation has a last event")
}

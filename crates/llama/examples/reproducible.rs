//! Measures the cost of `reproducible`: tokens per second of some streams at once, and TTFT of a long prompt, with and
//! without, in one run.
//!
//! `cargo run --release -p weir-llama --example reproducible -- 2 models/*.gguf` (2 threads)

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
use weir_inference::local::{LocalEngine, Options};
use weir_llama::{LoadOptions, load};

/// Tokens of each stream.
const TOKENS: u32 = 24;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|threads| threads.parse().ok());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for path in arguments {
        println!("{path}");
        for reproducible in [false, true, false, true] {
            let options = LoadOptions {
                threads,
                context_tokens: Some(1_536),
                cells: Some(1_536 * 8),
                sequences: reproducible.then_some(8),
                reproducible,
                ..LoadOptions::default()
            };
            let model = load(Path::new(&path), &options).expect("the model loads");
            let engine = LocalEngine::spawn(model, Options::new(|| Timestamp::UNIX_EPOCH));
            let engine = engine.expect("the engine starts");
            println!("  reproducible = {reproducible}");
            for clients in [1, 8, 32] {
                let begin = Instant::now();
                let streams = (0..clients).map(|client| stream(&engine, 8 + client % 5, TOKENS));
                let tokens: u64 = runtime.block_on(join_all(streams)).iter().sum();
                let rate = tokens as f64 / begin.elapsed().as_secs_f64();
                println!("    {clients:2} streams: {rate:6.1} tokens/s");
            }
            let begin = Instant::now();
            runtime.block_on(stream(&engine, 1_000, 1));
            let took = begin.elapsed().as_millis();
            println!("    first token of a prompt of 1,000: {took} ms");
            engine.stop_and_wait();
        }
    }
}

/// Sends a prompt of this many tokens, and returns the number of tokens that were generated.
async fn stream(engine: &LocalEngine, prompt: u32, tokens: u32) -> u64 {
    let greedy = SamplingFields {
        temperature: Some(0.0),
        ..SamplingFields::default()
    };
    let prompt = (0..prompt).map(|token| 500 + token * 7 % 900).collect();
    let request = Request {
        sampling: Sampling::new(greedy).expect("a sampler"),
        output: OutputLimit {
            tokens: Some(tokens),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt)]))
    };
    let prepared = engine.render(request).await.expect("it fits");
    let mut events = engine.start(prepared).expect("it is accepted");
    while let Some(event) = events.next().await {
        if let Event::Done(usage) = event {
            return usage.completion;
        }
    }
    panic!("the stream has no end");
}

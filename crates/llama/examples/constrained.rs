//! Measures the cost of constrained decoding: the time for a token mask, and the tokens per second of streams with and
//! without a schema, in turns: `cargo run --release -p weir-llama --example constrained -- MODEL.gguf…`.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use weir_engine::request::{
    Choices, Format, OutputLimit, Overflow, Prompt, Request, Sampling, SamplingFields,
};
use weir_engine::{Event, Input, Token};
use weir_inference::constraint::{Cancel, Constraints, Grammar, MaskComputer, MaskJob};
use weir_inference::local::{LocalEngine, Options};
use weir_inference::model::{Bos, Model, Tokenizer};
use weir_llama::{LlamaModel, LoadOptions, load};

const ROUNDS: usize = 5;
const TOKENS: u32 = 96;

fn main() {
    for path in std::env::args().skip(1) {
        println!(
            "{}",
            Path::new(&path)
                .file_name()
                .map_or("", |n| n.to_str().unwrap_or(""))
        );
        let model = load(Path::new(&path), &LoadOptions::default()).expect("the model loads");
        measure_masks(&model.tokenizer());
        measure_streams(model);
    }
}

/// A schema whose documents never end, so that all streams have the same length.
fn schema() -> Value {
    let item = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "count": { "type": "integer", "minimum": 0, "maximum": 1000 },
            "price": { "type": "number" },
            "kind": { "enum": ["small", "large", "other"] },
        },
        "required": ["name", "count"],
        "additionalProperties": false,
    });
    json!({ "type": "array", "items": item, "minItems": 1000 })
}

/// Computes masks on the calling thread, and records how long each takes.
#[derive(Default)]
struct Timed(Vec<Duration>);

impl MaskComputer for Timed {
    fn compute(&mut self, job: MaskJob) {
        let start = Instant::now();
        job.run();
        self.0.push(start.elapsed());
    }
}

fn measure_masks(tokenizer: &Arc<dyn Tokenizer>) {
    let constraints = Constraints::new(Arc::clone(tokenizer));
    let compile = |grammar: &Grammar| {
        let start = Instant::now();
        let constraint = constraints
            .compile(grammar, &Cancel::default())
            .expect("a good grammar")
            .constraint;
        (constraint, start.elapsed())
    };
    let (_, first) = compile(&Grammar::json_object());
    let (constraint, second) = compile(&Grammar::json_schema(&schema()));
    let (_, again) = compile(&Grammar::json_schema(&schema()));
    println!("  vocabulary {}", tokenizer.vocabulary());
    println!("  first grammar {first:.1?}, a schema {second:.1?}, the same again {again:.1?}");
    let item = r#"{"name": "The old mill by the river, über alles", "count": 37, "price": 12.5, "kind": "large"}, "#;
    let text = format!("[{}", item.repeat(6));
    for name in ["cold", "warm"] {
        let mut walk = constraint.begin();
        let mut masks = Timed::default();
        for token in tokenizer.tokenize(&text, Bos::Omit) {
            walk.advance(token, &mut masks);
            walk.ahead();
        }
        masks.0.sort();
        let times = &masks.0;
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("a few");
        let (p99, max) = (times[times.len() * 99 / 100], times[times.len() - 1]);
        println!(
            "  {name} masks: {} of mean {mean:.0?}, p99 {p99:.0?}, max {max:.0?}",
            times.len()
        );
    }
}

fn measure_streams(model: LlamaModel) {
    let tokenizer = model.tokenizer();
    let ends: Vec<(Token, f64)> = (0..tokenizer.vocabulary())
        .filter(|&token| tokenizer.is_end(token))
        .map(|token| (token, -100.0))
        .collect();
    let engine = LocalEngine::spawn(model, Options::new(|| Timestamp::UNIX_EPOCH));
    let engine = engine.expect("the engine starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for streams in [1, 8] {
        let mut speeds = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let formats = [Format::Text, Format::JsonSchema(schema().into())];
            for (speeds, format) in speeds.iter_mut().zip(formats) {
                let seed = i64::try_from(round).expect("a few rounds");
                let run = stream(&engine, format, streams, seed, ends.clone());
                speeds.push(runtime.block_on(run));
            }
        }
        let [free, kept] = speeds.map(|mut speeds| {
            speeds.sort_by(f64::total_cmp);
            speeds[ROUNDS / 2]
        });
        println!(
            "  {streams} streams: {free:.1} tokens/s free, {kept:.1} with a schema: {:.3}",
            kept / free
        );
    }
    engine.stop_and_wait();
}

async fn stream(
    engine: &LocalEngine,
    format: Format,
    streams: i64,
    seed: i64,
    ends: Vec<(Token, f64)>,
) -> f64 {
    let fields = SamplingFields {
        seed: Some(seed),
        logit_bias: ends,
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(fields).expect("values in range"),
        choices: Choices::new(streams).expect("a few"),
        format,
        output: OutputLimit {
            tokens: Some(TOKENS),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text("A list:".to_owned())]))
    };
    let prepared = engine.render(request).await.expect("a good request");
    let start = Instant::now();
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut tokens = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Done(usage) => tokens = usage.completion,
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

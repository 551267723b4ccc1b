//! Measures the cost of a step, by its number of tokens, by the cells that are in the cache, and by the streams beside it.
//!
//! `cargo run --release -p weir-llama --example steps -- [THREADS] models/*.gguf`
//!
//! With one thread the time is that thread's processor time, so that other work on the machine hardly counts. With more it is
//! wall time, on a machine that should do nothing else.

#![expect(clippy::print_stdout, reason = "a report for a person")]
#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::path::Path;
use std::time::Instant;

use weir_engine::Token;
use weir_inference::model::{BatchToken, Model, SequenceId};
use weir_llama::{FlashAttention, KvLayout, LlamaModel, LoadOptions, load};

const DEPTHS: [u32; 3] = [0, 1_024, 3_000];
const ROWS: [u32; 6] = [1, 4, 16, 32, 64, 128];
const STREAMS: [u32; 3] = [1, 8, 32];
/// Tokens of each stream.
const LENGTH: u32 = 180;
/// The number of streams beside a prompt.
const BESIDE: u32 = 4;
/// The number of the prompt's tokens in a step beside these streams.
const ROWS_BESIDE: [u32; 5] = [4, 12, 28, 60, 124];
/// The number of the prompt's tokens that are in the cache before.
const BEHIND: u32 = 1_500;

fn main() {
    let all = [
        (KvLayout::Unified, FlashAttention::Off),
        (KvLayout::Unified, FlashAttention::On),
        (KvLayout::Split, FlashAttention::Off),
        (KvLayout::Split, FlashAttention::On),
    ];
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    let threads = paths.first().and_then(|first| first.parse().ok());
    if threads.is_some() {
        paths.remove(0);
    }
    let threads = threads.unwrap_or(1);
    for (path, (kv_layout, flash_attention)) in
        paths.iter().flat_map(|path| all.map(|how| (path, how)))
    {
        let options = LoadOptions {
            threads: Some(threads),
            cells: (kv_layout == KvLayout::Unified).then_some(8_192),
            context_tokens: (kv_layout == KvLayout::Split).then_some(512),
            sequences: Some(40),
            kv_layout,
            flash_attention,
            ..LoadOptions::default()
        };
        let mut model = match load(Path::new(path), &options) {
            Ok(model) => model,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        println!(
            "{path}, {kv_layout:?}, flash attention {flash_attention:?}: milliseconds, threads = {threads}"
        );
        match kv_layout {
            KvLayout::Unified => {
                beside_streams(&mut model, threads);
                prompts(&mut model, threads);
                streams(&mut model, threads, &[0, 2_048]);
            }
            // With split cells, the cells of other sequences cost nothing, so only the empty cache is measured.
            KvLayout::Split => streams(&mut model, threads, &[0]),
        }
    }
}

fn prompts(model: &mut LlamaModel, threads: u32) {
    println!("rows of one sequence, behind so many tokens (ms for each row)");
    header(&ROWS);
    let sequence = SequenceId(0);
    for depth in DEPTHS {
        fill(model, sequence, 0, depth);
        let costs = ROWS.map(|rows| {
            let again = (16 / rows).clamp(1, 3);
            let took = least(again, || {
                let took = timed(threads, || compute(model, &piece(sequence, depth, rows)));
                if depth > 0 {
                    model.truncate(sequence, depth);
                } else {
                    model.forget(sequence);
                }
                took
            });
            took / f64::from(rows)
        });
        line(depth, &costs);
        model.forget(sequence);
    }
}

fn beside_streams(model: &mut LlamaModel, threads: u32) {
    println!(
        "rows of one sequence behind {BEHIND} tokens, and one row of each of {BESIDE} streams (ms for each row)"
    );
    header(&ROWS_BESIDE);
    let sequence = SequenceId(BESIDE);
    fill(model, sequence, 0, BEHIND);
    (0..BESIDE).for_each(|stream| fill(model, SequenceId(stream), 0, LENGTH));
    let costs = ROWS_BESIDE.map(|rows| {
        let streams = (0..BESIDE).flat_map(|stream| piece(SequenceId(stream), LENGTH, 1));
        let step: Vec<BatchToken> = streams.chain(piece(sequence, BEHIND, rows)).collect();
        let took = least(3, || {
            let took = timed(threads, || compute(model, &step));
            model.truncate(sequence, BEHIND);
            (0..BESIDE).for_each(|stream| model.truncate(SequenceId(stream), LENGTH));
            took
        });
        took / f64::from(BESIDE + rows)
    });
    line(BEHIND, &costs);
    (0..=BESIDE).for_each(|stream| model.forget(SequenceId(stream)));
}

fn streams(model: &mut LlamaModel, threads: u32, kept: &[u32]) {
    println!(
        "one row of each of so many streams of {LENGTH} tokens, beside so many kept cells (ms for each row)"
    );
    header(&STREAMS);
    for &kept in kept {
        fill(model, SequenceId(39), 0, kept);
        let costs = STREAMS.map(|streams| {
            (0..streams).for_each(|stream| fill(model, SequenceId(stream), 0, LENGTH));
            let mut position = LENGTH;
            let took = least(4, || {
                let rows: Vec<BatchToken> = (0..streams)
                    .flat_map(|stream| piece(SequenceId(stream), position, 1))
                    .collect();
                position += 1;
                timed(threads, || compute(model, &rows))
            });
            (0..streams).for_each(|stream| model.forget(SequenceId(stream)));
            took / f64::from(streams)
        });
        line(kept, &costs);
        model.forget(SequenceId(39));
    }
}

fn fill(model: &mut LlamaModel, sequence: SequenceId, from: u32, to: u32) {
    let mut at = from;
    while at < to {
        let rows = (to - at).min(128);
        compute(model, &piece(sequence, at, rows));
        at += rows;
    }
}

/// Tokens of a sequence from position `from` on; the last one is an output.
fn piece(sequence: SequenceId, from: u32, count: u32) -> Vec<BatchToken> {
    (from..from + count)
        .map(|position| BatchToken {
            token: Token::from(1_000 + (position * 7_919 + sequence.0 * 31) % 20_000),
            position,
            sequence,
            output: position + 1 == from + count,
        })
        .collect()
}

fn compute(model: &mut LlamaModel, rows: &[BatchToken]) {
    model.decode(rows).expect("there is room");
}

fn least(times: u32, mut run: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| run()).fold(f64::INFINITY, f64::min)
}

/// Runs `work` and returns milliseconds: this thread's processor time, or with several threads wall time.
fn timed(threads: u32, work: impl FnOnce()) -> f64 {
    if threads > 1 {
        let began = Instant::now();
        work();
        return began.elapsed().as_secs_f64() * 1e3;
    }
    let before = processor_time();
    work();
    processor_time() - before
}

fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux says so");
    let nanoseconds = text
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    nanoseconds.expect("its first number") / 1e6
}

fn header(columns: &[u32]) {
    print!("{:>8}", "");
    columns.iter().for_each(|column| print!("{column:>8}"));
    println!();
}

fn line(name: u32, costs: &[f64]) {
    print!("{name:>8}");
    costs.iter().for_each(|cost| print!("{cost:>8.2}"));
    println!();
}

//! Measures how fast a loaded model computes, so that its settings can be compared.

#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::time::{Duration, Instant};

use weir_engine::Token;
use weir_inference::model::{BatchToken, Batching, DecodeError, Forks, Model, SequenceId};

use crate::LlamaModel;

/// Decode steps per measurement; the median counts.
const STEPS: u32 = 8;
/// Tokens of the first prompt, whose speed says how much this machine can be asked for.
const FIRST_ROWS: u32 = 32;
/// The time that the prompts of a measurement should take.
const PROMPTS: Duration = Duration::from_secs(2);
/// The tokens before each stream, at least and at most: fewer don't show what attention costs, more don't show it better.
const DEPTHS: std::ops::RangeInclusive<u32> = 16..=256;

/// The work of a measurement, the same for all settings that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The number of streams that decode at once.
    pub streams: u32,
    /// The number of tokens before each stream.
    pub depth: u32,
}

/// Results of a measurement, in tokens per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Prefill, without decoding beside it.
    pub prompt: f64,
    /// Decode of a single stream.
    pub one: f64,
    /// Decode of all streams together.
    pub many: f64,
    /// Duration of the measurement.
    pub took: Duration,
}

impl Workload {
    /// A workload with `tokens` per stream, less if the cache has no room for them; without `tokens`, as many as this machine
    /// computes in a few seconds. Also reads the weights from the disk.
    pub fn fit(
        model: &mut LlamaModel,
        streams: u32,
        tokens: Option<u32>,
    ) -> Result<Self, DecodeError> {
        let speed = first_speed(model)?;
        let depth = match tokens {
            Some(tokens) => tokens.saturating_sub(2 * STEPS),
            None => {
                let depth = (speed * PROMPTS.as_secs_f64()) as u32 / streams;
                depth.clamp(*DEPTHS.start(), *DEPTHS.end())
            }
        };
        let room = model.capacity().cells / streams;
        let context = model.facts().context_tokens.min(room);
        Ok(Workload {
            streams,
            depth: depth.min(context.saturating_sub(2 * STEPS)).max(1),
        })
    }

    /// Measures the workload. The model's cache must be empty, and is empty afterwards.
    pub fn measure(self, model: &mut LlamaModel) -> Result<Speed, DecodeError> {
        let streams = (0..self.streams).map(SequenceId);
        let began = Instant::now();
        for stream in streams.clone() {
            fill(model, stream, self.depth)?;
        }
        let prompts = began.elapsed();
        let all: Vec<_> = streams.clone().collect();
        let one = step(model, &all[..1], self.depth)?;
        match model.capacity().forks {
            Forks::Anywhere => model.truncate(SequenceId(0), self.depth),
            Forks::AtEnd => {
                model.forget(SequenceId(0));
                fill(model, SequenceId(0), self.depth)?;
            }
        }
        let many = step(model, &all, self.depth)?;
        streams.for_each(|stream| model.forget(stream));
        let took = began.elapsed();
        let per_second = |tokens: u32, took: Duration| f64::from(tokens) / took.as_secs_f64();
        Ok(Speed {
            prompt: per_second(self.streams * self.depth, prompts),
            one: per_second(1, one),
            many: per_second(self.streams, many),
            took,
        })
    }
}

/// Tokens per second of a short prompt. It is computed twice, and the second time counts.
fn first_speed(model: &mut LlamaModel) -> Result<f64, DecodeError> {
    let rows = FIRST_ROWS.min(model.capacity().rows);
    let rows = rows.min(model.facts().context_tokens);
    let mut once = || {
        let began = Instant::now();
        fill(model, SequenceId(0), rows)?;
        let took = began.elapsed();
        model.forget(SequenceId(0));
        Ok(took)
    };
    once()?;
    Ok(f64::from(rows) / once()?.as_secs_f64().max(1e-6))
}

/// Puts this many tokens into an empty sequence, in the largest steps that are possible.
fn fill(model: &mut LlamaModel, sequence: SequenceId, tokens: u32) -> Result<(), DecodeError> {
    let rows = model.capacity().rows as usize;
    let vocabulary = model.tokenizer().vocabulary();
    let all: Vec<BatchToken> = (0..tokens)
        .map(|position| row(vocabulary, sequence, position, position + 1 == tokens))
        .collect();
    all.chunks(rows).try_for_each(|rows| model.decode(rows))
}

/// The median time of a step that adds a token to each sequence.
fn step(
    model: &mut LlamaModel,
    sequences: &[SequenceId],
    from: u32,
) -> Result<Duration, DecodeError> {
    let vocabulary = model.tokenizer().vocabulary();
    let mut took = Vec::new();
    for position in from..from + STEPS {
        let rows = sequences
            .iter()
            .map(|&sequence| row(vocabulary, sequence, position, true));
        let rows: Vec<BatchToken> = rows.collect();
        let began = Instant::now();
        match model.capacity().batching {
            Batching::Together => model.decode(&rows)?,
            Batching::OneSequence => rows.chunks(1).try_for_each(|row| model.decode(row))?,
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

/// A token of the batch. Its number is arbitrary, since the kernels take the same time for all.
fn row(vocabulary: u32, sequence: SequenceId, position: u32, output: bool) -> BatchToken {
    BatchToken {
        token: Token::from((position * 7_919 + sequence.0 * 31) % vocabulary),
        position,
        sequence,
        output,
    }
}

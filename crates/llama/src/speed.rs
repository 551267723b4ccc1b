//! How fast a model computes as it is loaded, so that its settings can be chosen.

#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::time::{Duration, Instant};

use weir_engine::Token;
use weir_engine::model::{Batching, DecodeError, Forks, Model, Row, SequenceId};

use crate::LlamaModel;

/// Steps of a stream of which the median counts.
const STEPS: u32 = 8;
/// Rows that say how fast this machine is, before it is known how many tokens it can be asked for.
const FIRST_ROWS: u32 = 32;
/// Time for the prompts of a measurement.
const PROMPTS: Duration = Duration::from_secs(2);
/// Fewer tokens before a stream don't show what attention costs, and more don't show it better.
const DEPTHS: std::ops::RangeInclusive<u32> = 16..=256;

/// What is computed: the same for all settings that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Streams that decode at once.
    pub streams: u32,
    /// Tokens before each of them.
    pub depth: u32,
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Of prompts, with nobody beside them.
    pub prompt: f64,
    /// Of a stream that is alone.
    pub one: f64,
    /// Of all streams together.
    pub many: f64,
    /// How long it took to measure them.
    pub took: Duration,
}

impl Workload {
    /// Streams of so many tokens, as far as there is room for them, or of as many as this machine computes in a few seconds. Also reads
    /// the weights from the disk.
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

    /// Computes it in a model whose cache is empty, and is again afterwards.
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

/// Rows per second of a short prompt, the second time.
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

/// Puts so many tokens into an empty sequence, in the largest steps that there are.
fn fill(model: &mut LlamaModel, sequence: SequenceId, tokens: u32) -> Result<(), DecodeError> {
    let rows = model.capacity().rows as usize;
    let vocabulary = model.tokenizer().vocabulary();
    let all: Vec<Row> = (0..tokens)
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
        let rows: Vec<Row> = rows.collect();
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

/// Any token: what they say makes no difference to the kernels.
fn row(vocabulary: u32, sequence: SequenceId, position: u32, output: bool) -> Row {
    Row {
        token: Token::from((position * 7_919 + sequence.0 * 31) % vocabulary),
        position,
        sequence,
        output,
    }
}

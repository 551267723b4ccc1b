//! Measures how differently two files answer: their distributions of the next token over a text.

use std::path::Path;

use serde::{Deserialize, Serialize};
use weir_engine::Token;
use weir_inference::model::{BatchToken, Bos, Model, SequenceId};

use crate::load::load;
use crate::model::LlamaModel;
use crate::options::{LoadError, LoadOptions};

/// A text of some 400 tokens: prose, speech, code, a list and numbers.
const TEXT: &str = include_str!("text.txt");
/// Tokens per step. Each is an output, and takes memory for its logits.
const ROWS: u32 = 32;
/// The most memory for logits. One model's are kept while the other computes, so large vocabularies get a part of the text.
const LOGITS_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Positions of the text that were compared.
    pub tokens: u32,
    /// Mean KL divergence of the copy's next-token distribution from the original's, in nats.
    pub kl_mean: f64,
    /// The share of positions at which both models find the same token most likely.
    pub same_best: f64,
}

impl Difference {
    /// Whether the mean divergence is within the limit. NaN is over every limit.
    pub(super) fn within(&self, kl_mean_max: f64) -> bool {
        self.kl_mean <= kl_mean_max
    }
}

/// Computes the text with one model after the other, so that only one is in memory.
pub(super) fn measure(original: &Path, copy: &Path, threads: u32) -> Result<Difference, LoadError> {
    let (mut kl_sum, mut same) = (0.0, 0);
    let (tokens, logits) = {
        let mut model = small(original, threads)?;
        let mut tokens = model.tokenizer().tokenize(TEXT, Bos::Add);
        let vocabulary = model.tokenizer().vocabulary() as usize;
        let room = LOGITS_BYTES_MAX / (vocabulary * size_of::<f32>());
        tokens.truncate(room.min(model.facts().context_tokens as usize));
        let mut logits = Vec::with_capacity(tokens.len());
        run(original, &mut model, &tokens, |row| {
            logits.push(row.to_vec());
        })?;
        (tokens, logits)
    };
    let mut expected = logits.into_iter();
    run(copy, &mut small(copy, threads)?, &tokens, |row| {
        let expected = expected.next().expect("as many positions as before");
        kl_sum += divergence(&expected, row);
        same += u32::from(best(&expected) == best(row));
    })?;
    let positions = tokens.len().max(1) as f64;
    Ok(Difference {
        tokens: tokens.len() as u32,
        kl_mean: rounded(kl_sum / positions),
        same_best: rounded(f64::from(same) / positions),
    })
}

/// Rounds to nine decimals, which JSON keeps exactly: a record must be read as it was written.
fn rounded(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}

fn small(path: &Path, threads: u32) -> Result<LlamaModel, LoadError> {
    let options = LoadOptions {
        threads: Some(threads),
        cells: Some(1_024),
        sequences: Some(ROWS),
        ..LoadOptions::default()
    };
    load(path, &options)
}

/// Calls `each` with the logits after each token.
fn run(
    path: &Path,
    model: &mut LlamaModel,
    tokens: &[Token],
    mut each: impl FnMut(&[f32]),
) -> Result<(), LoadError> {
    let rows: Vec<BatchToken> = (0..)
        .zip(tokens)
        .map(|(position, &token)| BatchToken {
            token,
            position,
            sequence: SequenceId(0),
            output: true,
        })
        .collect();
    for step in rows.chunks(ROWS as usize) {
        model.decode(step).map_err(|error| LoadError::Broken {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        (0..step.len()).for_each(|row| each(model.logits(row)));
    }
    Ok(())
}

/// The KL divergence of the distribution of `other` from that of `logits`.
fn divergence(logits: &[f32], other: &[f32]) -> f64 {
    let (whole, whole_other) = (log_sum(logits), log_sum(other));
    let term = |(&logit, &other): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(logit) - whole, f64::from(other) - whole_other);
        log_p.exp() * (log_p - log_q)
    };
    logits.iter().zip(other).map(term).sum()
}

fn log_sum(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - largest).exp())
        .sum();
    largest + sum.ln()
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_of_two_distributions() {
        // In nats, by hand: sum of p ln(p / q).
        let check = |p: &[f32], q: &[f32], expected: f64| {
            let logits = |p: &[f32]| p.iter().map(|p| p.ln() + 3.0).collect::<Vec<_>>();
            let got = divergence(&logits(p), &logits(q));
            assert!((got - expected).abs() < 1e-6, "{p:?} {q:?}: {got}");
        };
        check(&[0.5, 0.5], &[0.5, 0.5], 0.0);
        check(&[0.5, 0.5], &[0.25, 0.75], 0.143_841_036);
        check(&[0.9, 0.1], &[0.5, 0.5], 0.368_064_2);
        check(&[0.5, 0.5], &[0.9, 0.1], 0.510_825_62);
    }

    #[test]
    fn a_limit_also_holds_for_what_is_no_number() {
        for (kl_mean, within) in [(0.0, true), (0.02, true), (0.021, false), (f64::NAN, false)] {
            let difference = Difference {
                tokens: 1,
                kl_mean,
                same_best: 1.0,
            };
            assert_eq!(difference.within(0.02), within, "{kl_mean}");
        }
    }
}

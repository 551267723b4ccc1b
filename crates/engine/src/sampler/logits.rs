//! A model's logits with the few that bias and penalties changed, read in blocks without a copy.

use std::ops::Range;

use pulp::Arch;

use super::filter::Candidate;
use super::lanes;
use crate::Token;

/// Logits that are read at once: they fit the processor's first cache.
const BLOCK: usize = 1024;
/// Logits of which the highest is remembered, to find candidates without reading the others again.
const GROUP: usize = 64;

#[derive(Debug)]
pub(super) struct Logits<'a> {
    raw: &'a [f32],
    /// By token; each is in `raw`.
    overrides: &'a [(Token, f32)],
    arch: Arch,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub(super) token: Token,
    pub(super) logit: f32,
}

/// How a logit becomes a weight: exp((logit − max) · scale), 1 for the best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    pub(super) max: f32,
    /// 1 / temperature.
    pub(super) scale: f32,
}

impl Softmax {
    pub(super) fn weight(self, logit: f32) -> f32 {
        lanes::exp((logit - self.max) * self.scale)
    }
}

impl<'a> Logits<'a> {
    pub(super) fn new(raw: &'a [f32], overrides: &'a [(Token, f32)]) -> Self {
        Logits {
            raw,
            overrides,
            arch: Arch::new(),
        }
    }

    /// The highest logit, of the lowest token that has it; token 0 when none is a number.
    /// Leaves the highest of each group in `maxima`.
    pub(super) fn best(&self, maxima: &mut Vec<f32>) -> Best {
        maxima.clear();
        self.for_each_block(|block| lanes::push_maxima(self.arch, block, GROUP, maxima));
        let mut best = (0, f32::NEG_INFINITY);
        for (group, &max) in maxima.iter().enumerate() {
            if max > best.1 {
                best = (group, max);
            }
        }
        let (group, logit) = best;
        let mut buffer = [0.0; BLOCK];
        let range = self.group(group);
        let first = range.start;
        let inside = self
            .read(range, &mut buffer)
            .iter()
            .position(|&other| other == logit);
        Best {
            token: (first + inside.unwrap_or(0)) as Token,
            logit,
        }
    }

    /// Σ of all weights; leaves that of each block in `sums`.
    pub(super) fn sum(&self, softmax: Softmax, sums: &mut Vec<f64>) -> f64 {
        sums.clear();
        self.for_each_block(|block| {
            sums.push(lanes::sum_of_weights(
                self.arch,
                block,
                softmax.max,
                softmax.scale,
            ));
        });
        sums.iter().sum()
    }

    /// Draws from the whole vocabulary. `None` if no token has weight.
    pub(super) fn draw(&self, softmax: Softmax, sums: &mut Vec<f64>, random: f64) -> Option<Token> {
        let mut left = random * self.sum(softmax, sums);
        let last = sums.iter().rposition(|&sum| sum > 0.0)?;
        let mut block = 0;
        while block < last && left >= sums[block] {
            left -= sums[block];
            block += 1;
        }
        let mut buffer = [0.0; BLOCK];
        let first = block * BLOCK;
        let mut chosen = None;
        for (token, &logit) in self.read(self.block(block), &mut buffer).iter().enumerate() {
            let weight = softmax.weight(logit);
            if weight > 0.0 {
                // When rounding leaves something of `left`, the last one with weight is chosen.
                chosen = Some((first + token) as Token);
                left -= f64::from(weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        chosen
    }

    /// All tokens from `floor` upwards, by id. `maxima` are those of [`best`](Self::best).
    pub(super) fn collect(&self, floor: f32, maxima: &[f32], candidates: &mut Vec<Candidate>) {
        candidates.clear();
        // The lowest number: −∞ is a masked token, which is never a candidate.
        let floor = floor.max(f32::MIN);
        let mut buffer = [0.0; BLOCK];
        for (group, _) in maxima.iter().enumerate().filter(|&(_, &max)| max >= floor) {
            let range = self.group(group);
            let first = range.start;
            for (token, &logit) in self.read(range, &mut buffer).iter().enumerate() {
                if logit >= floor {
                    candidates.push(Candidate {
                        token: (first + token) as Token,
                        logit,
                        weight: 0.0,
                    });
                }
            }
        }
    }

    fn for_each_block(&self, mut f: impl FnMut(&[f32])) {
        let mut buffer = [0.0; BLOCK];
        for block in 0..self.raw.len().div_ceil(BLOCK) {
            f(self.read(self.block(block), &mut buffer));
        }
    }

    fn block(&self, block: usize) -> Range<usize> {
        block * BLOCK..((block + 1) * BLOCK).min(self.raw.len())
    }

    fn group(&self, group: usize) -> Range<usize> {
        group * GROUP..((group + 1) * GROUP).min(self.raw.len())
    }

    /// The logits of a range of at most [`BLOCK`]: the model's own, or where some of them have
    /// changed a copy in `buffer`.
    fn read<'b>(&self, range: Range<usize>, buffer: &'b mut [f32; BLOCK]) -> &'b [f32]
    where
        'a: 'b,
    {
        let raw = &self.raw[range.clone()];
        let from = self
            .overrides
            .partition_point(|&(token, _)| (token as usize) < range.start);
        let inside = self.overrides[from..]
            .iter()
            .take_while(|&&(token, _)| (token as usize) < range.end);
        let mut copied = false;
        for &(token, logit) in inside {
            if !copied {
                buffer[..raw.len()].copy_from_slice(raw);
                copied = true;
            }
            buffer[token as usize - range.start] = logit;
        }
        if copied { &buffer[..raw.len()] } else { raw }
    }
}

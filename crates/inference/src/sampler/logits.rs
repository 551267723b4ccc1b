//! A model's logits with the few that bias and penalties changed and those that a constraint forbids,
//! read in blocks without a copy of all.

use std::ops::Range;

use pulp::Arch;
use weir_engine::Token;

use super::exponential_race::{Key, Race};
use super::simd::{self, LANES};
use super::weights::{Candidate, Softmax};

/// Logits that are read at once: they fit the processor's L1 cache.
const BLOCK: usize = 1024;
/// Logits of a group. The highest of each group is remembered, to find candidates without reading the others again.
const GROUP: usize = 64;
/// A group's time is too high by less than this fraction of it, from rounding.
const ROUNDING: f64 = 1e-5;
/// Bits of one word of a mask.
const WORD: usize = u32::BITS as usize;

#[derive(Debug)]
pub(super) struct Logits<'a> {
    raw: &'a [f32],
    /// Logits that have changed, by token id; each token is in `raw`.
    overrides: &'a [(Token, f32)],
    /// A bit for each token that may be chosen; `None` is all of them.
    allowed: Option<&'a [u32]>,
    arch: Arch,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub(super) token: Token,
    pub(super) logit: f32,
}

impl<'a> Logits<'a> {
    pub(super) fn new(raw: &'a [f32], overrides: &'a [(Token, f32)]) -> Self {
        Logits {
            raw,
            overrides,
            allowed: None,
            arch: Arch::new(),
        }
    }

    /// Sets the logit of every token without a bit in `allowed` to −∞.
    pub(super) fn masked(self, allowed: Option<&'a [u32]>) -> Self {
        Logits { allowed, ..self }
    }

    /// The highest logit, with the lowest token that has it; token 0 when none has a chance. Leaves the highest logit
    /// of each group in `maxima`.
    pub(super) fn best(&self, maxima: &mut Vec<f32>) -> Best {
        maxima.clear();
        let mut buffer = [0.0; BLOCK];
        for block in 0..self.raw.len().div_ceil(BLOCK) {
            let range = self.block(block);
            if self.forbids(&range) {
                let groups = maxima.len() + range.len().div_ceil(GROUP);
                maxima.resize(groups, f32::NEG_INFINITY);
            } else {
                let block = self.read(range, &mut buffer);
                simd::push_maxima(self.arch, block, GROUP, maxima);
            }
        }
        let mut best = (0, f32::NEG_INFINITY);
        for (group, &max) in maxima.iter().enumerate() {
            if max > best.1 {
                best = (group, max);
            }
        }
        let (group, logit) = best;
        if logit == f32::NEG_INFINITY {
            return Best { token: 0, logit };
        }
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

    /// The sum of all weights.
    pub(super) fn sum(&self, softmax: Softmax) -> f64 {
        let mut sum = 0.0;
        let mut buffer = [0.0; BLOCK];
        for block in 0..self.raw.len().div_ceil(BLOCK) {
            let range = self.block(block);
            if !self.forbids(&range) {
                let block = self.read(range, &mut buffer);
                sum += simd::sum_of_weights(self.arch, block, softmax.max, softmax.scale);
            }
        }
        sum
    }

    /// Draws from the whole vocabulary. `None` if no token has weight. `maxima` are those of [`best`](Self::best).
    /// Leaves in `times` a time for each group before which none of its tokens arrives.
    pub(super) fn draw(
        &self,
        softmax: Softmax,
        maxima: &[f32],
        key: Key,
        times: &mut Vec<f32>,
    ) -> Option<Token> {
        times.clear();
        for (block, maxima) in maxima.chunks(LANES).enumerate() {
            let block = simd::earliest::<GROUP>(self.arch, block, maxima, softmax, key);
            times.extend_from_slice(&block[..maxima.len()]);
        }
        let mut race = Race::new(key);
        // The most promising group runs first: few of the others can still win then.
        let first = (0..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]))?;
        self.run(first, softmax, &mut race);
        for (group, &time) in times.iter().enumerate() {
            if f64::from(time) * (1.0 - ROUNDING) < race.time() {
                self.run(group, softmax, &mut race);
            }
        }
        race.first()
    }

    fn run(&self, group: usize, softmax: Softmax, race: &mut Race) {
        let range = self.group(group);
        let first = range.start;
        for (token, &logit) in self.read(range, &mut [0.0; BLOCK]).iter().enumerate() {
            race.run((first + token) as Token, softmax.weight(logit));
        }
    }

    /// Collects the tokens with a logit of at least `floor`, by id. `maxima` are those of [`best`](Self::best).
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

    fn block(&self, block: usize) -> Range<usize> {
        block * BLOCK..((block + 1) * BLOCK).min(self.raw.len())
    }

    fn group(&self, group: usize) -> Range<usize> {
        group * GROUP..((group + 1) * GROUP).min(self.raw.len())
    }

    /// Whether no token of a range, which begins a word of the mask, may be chosen.
    fn forbids(&self, range: &Range<usize>) -> bool {
        self.words(range)
            .is_some_and(|words| words.iter().all(|&word| word == 0))
    }

    /// The mask's words for a range, `None` without a mask; tokens beyond the mask have none.
    fn words(&self, range: &Range<usize>) -> Option<&'a [u32]> {
        let allowed = self.allowed?;
        let end = range.end.div_ceil(WORD).min(allowed.len());
        Some(allowed.get(range.start / WORD..end).unwrap_or_default())
    }

    /// The logits of a range of at most [`BLOCK`] tokens: the model's own or, where some of them have changed, a copy
    /// in `buffer`.
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
        if let Some(words) = self.words(&range)
            && !(words.len() == raw.len().div_ceil(WORD) && words.iter().all(|&w| w == u32::MAX))
        {
            if !copied {
                buffer[..raw.len()].copy_from_slice(raw);
                copied = true;
            }
            forbid(&mut buffer[..raw.len()], words);
        }
        if copied { &buffer[..raw.len()] } else { raw }
    }
}

/// Sets each logit whose bit is not set to −∞.
fn forbid(logits: &mut [f32], words: &[u32]) {
    let words = words.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(WORD).zip(words) {
        match word {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

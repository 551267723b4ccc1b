//! Arithmetic on many logits at once.
//!
//! Plain loops over sixteen lanes, which the compiler turns into vector instructions; `pulp` compiles
//! them once more for AVX2 and chooses at run time. The lanes are fixed here, so that results
//! are the same to the bit whatever the processor's registers hold.

use pulp::{Arch, Simd, WithSimd};
use weir_engine::Token;

use super::exponential_race::Key;
use super::weights::{Softmax, exp};

pub(super) const LANES: usize = 16;

/// The highest logit of each group of `group` logits, pushed to `maxima`; a NaN counts as −∞.
pub(super) fn push_maxima(arch: Arch, block: &[f32], group: usize, maxima: &mut Vec<f32>) {
    let from = maxima.len();
    maxima.resize(from + block.len().div_ceil(group), f32::NEG_INFINITY);
    arch.dispatch(Maxima {
        block,
        group,
        maxima: &mut maxima[from..],
    });
}

/// Σ exp((logit − max) · scale); a NaN counts as −∞.
pub(super) fn sum_of_weights(arch: Arch, block: &[f32], max: f32, scale: f32) -> f64 {
    arch.dispatch(Weights { block, max, scale })
}

/// For each of the [`LANES`] groups of block number `block`, with `GROUP` logits each, a time before which none of its
/// tokens arrives in a race. `maxima` are the highest of each group; groups that are not there never arrive.
pub(super) fn earliest<const GROUP: usize>(
    arch: Arch,
    block: usize,
    maxima: &[f32],
    softmax: Softmax,
    key: Key,
) -> [f32; LANES] {
    let mut padded = [f32::NEG_INFINITY; LANES];
    padded[..maxima.len()].copy_from_slice(maxima);
    arch.dispatch(Earliest::<GROUP> {
        first: (block * LANES * GROUP) as Token,
        maxima: padded,
        softmax,
        key,
    })
}

struct Maxima<'a> {
    block: &'a [f32],
    group: usize,
    maxima: &'a mut [f32],
}

// Only `with_simd` and what is inlined into it is compiled for a processor: hence no closures.
impl WithSimd for Maxima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (max_of_group, group) in self.maxima.iter_mut().zip(self.block.chunks(self.group)) {
            *max_of_group = max(group);
        }
    }
}

struct Weights<'a> {
    block: &'a [f32],
    max: f32,
    scale: f32,
}

impl WithSimd for Weights<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0_f32; LANES];
        let (chunks, rest) = self.block.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] += exp((chunk[i] - self.max) * self.scale);
            }
        }
        for (lane, &logit) in lanes.iter_mut().zip(rest) {
            *lane += exp((logit - self.max) * self.scale);
        }
        let mut sum = 0.0;
        for lane in lanes {
            sum += f64::from(lane);
        }
        sum
    }
}

struct Earliest<const GROUP: usize> {
    first: Token,
    maxima: [f32; LANES],
    softmax: Softmax,
    key: Key,
}

impl<const GROUP: usize> WithSimd for Earliest<GROUP> {
    type Output = [f32; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f32; LANES] {
        let mut times = [0.0; LANES];
        for (group, time) in times.iter_mut().enumerate() {
            let first = self.first + (group * GROUP) as Token;
            *time = (least::<GROUP>(first, self.key) as f32 + 0.5) / (1_u64 << 32) as f32;
        }
        for (time, max) in times.iter_mut().zip(self.maxima) {
            *time /= self.softmax.weight(max);
        }
        times
    }
}

/// The least of the random numbers of `COUNT` tokens from `first` on.
#[inline(always)]
fn least<const COUNT: usize>(first: Token, key: Key) -> u32 {
    let mut lanes = [u32::MAX; LANES];
    let mut tokens = [0; LANES];
    for (i, token) in tokens.iter_mut().enumerate() {
        *token = first.wrapping_add(i as Token);
    }
    for _ in 0..COUNT / LANES {
        for i in 0..LANES {
            lanes[i] = key.number(tokens[i]).min(lanes[i]);
            tokens[i] = tokens[i].wrapping_add(LANES as Token);
        }
    }
    let mut least = u32::MAX;
    for lane in lanes {
        least = least.min(lane);
    }
    least
}

#[inline(always)]
fn max(group: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = group.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(chunk[i], lanes[i]);
        }
    }
    for (lane, &logit) in lanes.iter_mut().zip(rest) {
        *lane = larger(logit, *lane);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The larger of two numbers. Unlike `f32::max` it is one instruction: a NaN in `a` loses, and `b` is never one.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

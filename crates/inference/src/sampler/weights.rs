//! The weight of a token: how likely it is, relative to the likeliest one.

use weir_engine::Token;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) token: Token,
    pub(super) logit: f32,
    pub(super) weight: f32,
}

/// How a logit becomes a weight: exp((logit − max) · scale), 1 for the best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    pub(super) max: f32,
    /// 1 / temperature.
    pub(super) scale: f32,
}

impl Softmax {
    #[inline(always)]
    pub(super) fn weight(self, logit: f32) -> f32 {
        exp((logit - self.max) * self.scale)
    }
}

/// eˣ for x ≤ 0, within 2e-7 of the true value; 0 below −87 and for NaN.
///
/// Cephes' polynomial, without fused multiplications and library calls: the same bits everywhere.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the coefficients as published")]
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    /// 1.5 · 2²³: adding it rounds to an integer, which is then in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_375;
    const LN_2_LOW: f32 = -2.121_944_40e-4;

    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut y = 1.987_569_150_0e-4;
    y = y * r + 1.398_199_950_7e-3;
    y = y * r + 8.333_451_907_3e-3;
    y = y * r + 4.166_579_589_4e-2;
    y = y * r + 1.666_666_545_9e-1;
    y = y * r + 5.000_000_120_1e-1;
    y = y * r * r + r + 1.0;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x >= LOWEST { y * power } else { 0.0 }
}

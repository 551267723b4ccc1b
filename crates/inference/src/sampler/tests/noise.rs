//! Where kernels round differently, the same seed nearly always gives the same tokens.

use weir_engine::request::SamplingFields;

use super::{Sampler, Scratch, sampling};

const VOCABULARY: u32 = 20_000;
const DRAWS: u32 = 500;

/// How far a logit may differ between two shapes of a batch: more than logits of the F16 models do.
const NOISE: f32 = 0.01;

#[test]
fn a_little_noise_moves_few_draws() {
    // With inverse transform sampling, a walk along the sums of probabilities, a third and more of the draws would
    // change.
    for change in [
        |_: &mut SamplingFields| (),
        |fields: &mut SamplingFields| fields.top_p = Some(0.95),
        |fields: &mut SamplingFields| fields.top_k = Some(50),
        |fields: &mut SamplingFields| fields.min_p = Some(0.02),
    ] {
        let sampling = sampling(change);
        let (mut one, mut other) = (
            Sampler::new(&sampling, &[], 0),
            Sampler::new(&sampling, &[], 0),
        );
        let mut scratch = Scratch::default();
        let moved = (0..DRAWS)
            .filter(|&draw| {
                one.sample(&logits(draw, 0.0), &mut scratch)
                    != other.sample(&logits(draw, NOISE), &mut scratch)
            })
            .count();
        assert!(
            moved <= DRAWS as usize / 50,
            "{moved} of {DRAWS} for {sampling:?}"
        );
    }
}

/// Logits with a few likely tokens, many unlikely ones, and some `noise`.
fn logits(draw: u32, noise: f32) -> Vec<f32> {
    (0..VOCABULARY)
        .map(|token| {
            let number = |salt: u32| {
                let mixed = (token ^ salt)
                    .wrapping_mul(2_654_435_761)
                    .wrapping_add(draw);
                (mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d) as f32 / (1_u64 << 32) as f32
            };
            let rank = 1.0 + number(1) * VOCABULARY as f32;
            -rank.ln() + noise * (2.0 * number(2) - 1.0)
        })
        .collect()
}

//! Tokens come as often as their probabilities say.

use weir_engine::request::SamplingFields;

use super::reference::Reference;
use super::{sample_many, sampling};

const DRAWS: usize = 4_000;

/// Tokens that are expected in fewer draws than this are counted together.
const EXPECTED_MIN: f64 = 10.0;

#[test]
fn frequencies_follow_the_distribution() {
    let short: Vec<f32> = (0..12).map(|i| (i * 7 % 12) as f32 * 0.4).collect();
    // Several blocks, with the weight spread over all of them.
    let long: Vec<f32> = (0..1100).map(|i| ((i * 37) % 101) as f32 * 0.07).collect();
    let mut masked = vec![f32::NEG_INFINITY; 1100];
    for i in 0..11 {
        masked[i * 100 + 7] = (i % 4) as f32 * 0.6;
    }
    for logits in [&short, &long, &masked] {
        check(logits, |_| ());
        check(logits, |fields| fields.temperature = Some(0.6));
        check(logits, |fields| fields.temperature = Some(2.0));
        check(logits, |fields| fields.top_k = Some(5));
        check(logits, |fields| fields.top_k = Some(100));
        check(logits, |fields| fields.top_p = Some(0.5));
        check(logits, |fields| fields.top_p = Some(0.95));
        check(logits, |fields| fields.min_p = Some(0.2));
        check(logits, |fields| {
            fields.logit_bias = vec![(3, 2.5), (7, -100.0), (9, -1.0)];
        });
        check(logits, |fields| {
            fields.temperature = Some(1.3);
            fields.min_p = Some(0.05);
            fields.top_k = Some(9);
            fields.top_p = Some(0.8);
        });
    }
}

fn check(logits: &[f32], change: fn(&mut SamplingFields)) {
    let sampling = sampling(change).or_seed(20);
    let expected = Reference::new(&sampling, logits, &[], &[]).distribution();
    let mut counts = vec![0.0; logits.len()];
    for token in sample_many(&sampling, 3, logits, DRAWS) {
        counts[token as usize] += 1.0;
    }

    let (mut statistic, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
    for (&count, probability) in counts.iter().zip(expected) {
        let expected = probability * DRAWS as f64;
        assert!(
            expected > 0.0 || count == 0.0,
            "a token outside the set was chosen"
        );
        if expected < EXPECTED_MIN {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        }
    }
    if rare.1 > 0.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1;
    }
    // χ² has the mean `freedom` and the variance 2·freedom: four deviations away is one case in thousands, and the seed
    // is fixed, so it is always or never.
    let freedom = f64::from(cells - 1);
    assert!(
        statistic <= freedom + 4.0 * (2.0 * freedom).sqrt() + 1e-9,
        "χ² is {statistic:.1} with {freedom} degrees of freedom for {sampling:?}"
    );
}

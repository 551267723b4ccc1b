//! The measurements of `weir tune`.

use weir_llama::{LoadOptions, Workload};

#[path = "support/common.rs"]
mod common;
use common::{small, smollm2, split};

#[test]
fn every_kind_of_cache_is_measured_and_empty_afterwards() {
    let reproducible = LoadOptions {
        reproducible: true,
        ..split()
    };
    for options in [small(), split(), reproducible] {
        let mut model = smollm2(&options);
        let workload = Workload::fit(&mut model, 3, None).expect("there is room");
        assert_eq!(workload.streams, 3);
        assert!((16..=256).contains(&workload.depth), "{workload:?}");
        let short = Workload {
            depth: 16,
            ..workload
        };
        // Twice: cells that the first measurement left would be in the way of the second.
        for _ in 0..2 {
            let speed = short.measure(&mut model).expect("there is room");
            for tokens in [speed.prompt, speed.one, speed.many] {
                assert!(tokens.is_finite() && tokens > 0.0, "{options:?} {speed:?}");
            }
        }
    }
}

#[test]
fn streams_are_as_long_as_asked_for_if_there_is_room() {
    let mut model = smollm2(&small());
    let mut check = |tokens: u32, depth: u32| {
        let workload = Workload::fit(&mut model, 3, Some(tokens)).expect("there is room");
        assert_eq!(workload.depth, depth, "{tokens}");
    };
    // 16 of the tokens are decoded in the measured steps.
    check(300, 284);
    check(16, 1);
    check(10_000, 2_048 / 3 - 16);
}

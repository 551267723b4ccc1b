//! The number of threads follows the cores that other processes leave free.

#![cfg(target_os = "linux")]

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use weir_inference::model::{Model, SequenceId};
use weir_llama::{LlamaModel, LoadOptions, load};

#[path = "support/common.rs"]
mod common;
use common::{compute, small, tiny_file};

/// Steps until the test fails: they take longer than a second, even on an idle core.
const STEPS: u32 = 100_000;

/// Restricts this thread, and those that it starts, to one core.
fn take_one_core() {
    let ours = sched_getaffinity(None).expect("the system says so");
    let first = (0..CpuSet::MAX_CPU).find(|&core| ours.is_set(core));
    let mut one = CpuSet::new();
    one.set(first.expect("some core is ours"));
    sched_setaffinity(None, &one).expect("it is one of ours");
}

fn model(threads: u32, threads_min: Option<u32>) -> LlamaModel {
    let options = LoadOptions {
        threads: Some(threads),
        threads_min,
        ..small()
    };
    load(&tiny_file("lfm2"), &options).expect("the fixture loads")
}

fn step(model: &mut LlamaModel) -> Vec<f32> {
    let text: Vec<_> = (100..116).collect();
    let logits = compute(model, 0, 0, &text, 16);
    model.forget(SequenceId(0));
    logits
}

#[test]
fn two_threads_on_one_core_become_one_and_compute_the_same() {
    take_one_core();
    let expected = step(&mut model(1, None));
    let mut model = model(2, None);
    assert_eq!(model.threads(), 2);
    for number in 0.. {
        assert!(
            number < STEPS,
            "two threads wait for one core, and nothing happens"
        );
        assert_eq!(
            step(&mut model),
            expected,
            "step {number}, {} threads",
            model.threads()
        );
        if model.threads() == 1 {
            break;
        }
    }
    // The result of the first step with the new number of threads is right.
    assert_eq!(step(&mut model), expected);
}

#[test]
fn all_threads_stay_where_as_many_are_asked_for() {
    take_one_core();
    let mut fewer = model(2, None);
    let mut steps = 0;
    while fewer.threads() == 2 {
        step(&mut fewer);
        steps += 1;
        assert!(
            steps < STEPS,
            "two threads wait for one core, and nothing happens"
        );
    }
    let mut all = model(2, Some(2));
    (0..2 * steps).for_each(|_| drop(step(&mut all)));
    assert_eq!(all.threads(), 2);
}

#[test]
fn no_more_can_be_asked_for_than_there_are() {
    let options = LoadOptions {
        threads: Some(2),
        threads_min: Some(3),
        ..small()
    };
    let error = load(&tiny_file("lfm2"), &options).expect_err("it is one too many");
    assert_eq!(
        error.to_string(),
        "threads_min must be between 1 and 2, got 3"
    );
}

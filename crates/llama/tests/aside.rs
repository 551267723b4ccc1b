//! Background prefill on the demo model, with decode steps between its operations.

use std::time::Duration;

use weir_engine::Token;
use weir_inference::model::{Aside, DecodeError, Model, SequenceId};
use weir_llama::{FlashAttention, KvFormat, KvLayout, LlamaModel, LoadOptions};

#[path = "support/common.rs"]
mod common;
use common::{compute, distance, essay, rows, small, smollm2, tokens};

/// The largest accepted difference of logits: somewhat more than `examples/noise.rs` measures.
const NOISE: f32 = 1.6;

fn aside() -> LoadOptions {
    LoadOptions {
        aside_tokens: 1_024,
        ..small()
    }
}

fn begin(model: &mut LlamaModel, sequence: u32, from: usize, piece: &[Token]) {
    let mut rows = rows(sequence, from, piece);
    rows.iter_mut().for_each(|row| row.output = false);
    model.begin_aside(&rows).expect("the piece fits");
}

/// Computes the chunk to its end, and returns how often it paused.
fn finish(model: &mut LlamaModel, time: Duration) -> usize {
    let mut pauses = 0;
    while model.go_aside(time).expect("it is computed") == Aside::Paused {
        pauses += 1;
    }
    pauses
}

const AT_ONCE: Duration = Duration::ZERO;
const TO_ITS_END: Duration = Duration::MAX;

#[test]
fn what_is_computed_aside_is_what_steps_compute() {
    let check = |options: LoadOptions| {
        let mut model = smollm2(&options);
        let most = model.aside().expect("prompts are computed aside");
        assert_eq!((most.rows, most.tokens), (256, 1_024), "{options:?}");
        let prompt = tokens(&model, &essay(1_000));
        let (prompt, last) = prompt[..201].split_at(200);
        compute(&mut model, 0, 0, prompt, 512);
        let expected = compute(&mut model, 0, 200, last, 1);
        // A whole prompt; a beginning in the first context only; after the chunks of another sequence; after a fork of a beginning.
        for (sequence, begins_with) in [(1, 0), (2, 70), (3, 0), (4, 150)] {
            if begins_with > 0 {
                model.fork(SequenceId(1), SequenceId(sequence), begins_with as u32);
            }
            let mut from = begins_with;
            for piece in prompt[from..].chunks(110) {
                begin(&mut model, sequence, from, piece);
                finish(&mut model, TO_ITS_END);
                from += piece.len();
            }
            let got = compute(&mut model, sequence, 200, last, 1);
            let apart = distance(&got, &expected);
            assert!(apart < NOISE, "{apart} from {begins_with}, {options:?}");
        }
    };
    check(aside());
    check(LoadOptions {
        flash_attention: FlashAttention::On,
        ..aside()
    });
    check(LoadOptions {
        kv_format: KvFormat::Q8_0,
        ..aside()
    });
}

#[test]
fn others_go_on_between_its_operations() {
    let mut model = smollm2(&aside());
    let text = tokens(&model, &essay(1_000));
    let (prompt, last) = text[..251].split_at(250);
    let beside: Vec<Token> = text[..40].to_vec();
    let expected = compute(&mut model, 0, 0, &text[..251], 512);
    let expected_beside = compute(&mut model, 1, 0, &beside, 1);
    (0..2).for_each(|sequence| model.forget(SequenceId(sequence)));

    begin(&mut model, 0, 0, prompt);
    let (mut steps, mut got_beside) = (0, Vec::new());
    while model.go_aside(AT_ONCE).unwrap() == Aside::Paused {
        if steps < beside.len() {
            got_beside = compute(&mut model, 1, steps, &beside[steps..=steps], 1);
        }
        steps += 1;
    }
    assert!(steps > 200, "{steps} pauses");
    assert!(distance(&got_beside, &expected_beside) < NOISE);
    let got = compute(&mut model, 0, 250, last, 1);
    assert!(distance(&got, &expected) < NOISE);
}

#[test]
fn a_piece_that_is_given_up_leaves_nothing() {
    let mut model = smollm2(&aside());
    let text = tokens(&model, &essay(1_000));
    let (prompt, last) = text[..251].split_at(250);
    let expected = compute(&mut model, 1, 0, &text[..251], 512);
    for times in [0, 1, 50] {
        begin(&mut model, 0, 0, prompt);
        for _ in 0..times {
            assert_eq!(model.go_aside(AT_ONCE), Ok(Aside::Paused));
        }
        if times == 1 {
            // Forgetting the sequence gives up its chunk.
            model.forget(SequenceId(0));
            assert!(matches!(
                model.go_aside(AT_ONCE),
                Err(DecodeError::Fault(_))
            ));
        }
    }
    // A new chunk replaces one that is paused.
    begin(&mut model, 2, 0, &prompt[..100]);
    finish(&mut model, TO_ITS_END);
    begin(&mut model, 2, 100, &prompt[100..]);
    assert_eq!(model.go_aside(AT_ONCE), Ok(Aside::Paused));
    begin(&mut model, 2, 100, &prompt[100..]);
    assert!(finish(&mut model, Duration::from_millis(1)) > 0);
    let got = compute(&mut model, 2, 250, last, 1);
    assert!(distance(&got, &expected) < NOISE);
    // Dropping the model with a paused chunk must not hang.
    begin(&mut model, 3, 0, prompt);
    assert_eq!(model.go_aside(AT_ONCE), Ok(Aside::Paused));
}

#[test]
fn without_room_for_what_was_computed_the_cache_is_as_before() {
    let mut model = smollm2(&LoadOptions {
        cells: Some(512),
        ..aside()
    });
    let prompt = tokens(&model, &essay(1_000));
    compute(&mut model, 0, 0, &prompt[..400], 512);
    begin(&mut model, 1, 0, &prompt[..200]);
    finish(&mut model, TO_ITS_END);
    // The cells aren't needed before the next step of the sequence, which then finds no room.
    let full = Err(DecodeError::CacheFull);
    assert_eq!(model.decode(&rows(1, 200, &prompt[200..201])), full);
    assert_eq!(model.decode(&rows(1, 200, &prompt[200..201])), full);
    model.forget(SequenceId(1));
    compute(&mut model, 1, 0, &prompt[..100], 512);
    model.forget(SequenceId(0));
    begin(&mut model, 1, 100, &prompt[100..300]);
    finish(&mut model, TO_ITS_END);
    compute(&mut model, 1, 300, &prompt[300..301], 1);
}

#[test]
fn wrong_pieces_are_refused() {
    let mut model = smollm2(&aside());
    let good = tokens(&model, &essay(1_000));
    let mut refused = |sequence, from, piece: &[Token], output: bool| {
        let mut rows = rows(sequence, from, piece);
        rows.iter_mut().for_each(|row| row.output &= output);
        let refused = model.begin_aside(&rows);
        assert!(matches!(refused, Err(DecodeError::Fault(_))), "{refused:?}");
    };
    refused(0, 0, &[], false);
    refused(0, 0, &good[..257], false);
    refused(0, 1, &good[..10], false);
    refused(40, 0, &good[..10], false);
    refused(0, 0, &good[..10], true);
    refused(0, 0, &[1, 1_000_000], false);
    for from in (0..1_024).step_by(256) {
        begin(&mut model, 0, from, &good[..256]);
        finish(&mut model, TO_ITS_END);
    }
    let mut rows = rows(0, 1_024, &good[..1]);
    rows[0].output = false;
    // Beyond the tokens that background prefill may compute.
    assert!(model.begin_aside(&rows).is_err());
    model.decode(&rows).unwrap();
}

#[test]
fn not_every_cache_has_it() {
    let check = |options: LoadOptions, expected: bool| {
        let model = smollm2(&options);
        assert_eq!(model.aside().is_some(), expected, "{options:?}");
    };
    check(small(), false);
    check(
        LoadOptions {
            kv_format: KvFormat::F32,
            ..aside()
        },
        false,
    );
    check(
        LoadOptions {
            flash_attention: FlashAttention::Off,
            ..aside()
        },
        false,
    );
    check(
        LoadOptions {
            cells: None,
            sequences: Some(4),
            kv_layout: KvLayout::Split,
            ..aside()
        },
        false,
    );
    check(
        LoadOptions {
            reproducible: true,
            cells: None,
            sequences: Some(4),
            ..aside()
        },
        false,
    );
    check(
        LoadOptions {
            sequences: Some(256),
            ..aside()
        },
        false,
    );
    check(
        LoadOptions {
            sequences: Some(255),
            ..aside()
        },
        true,
    );
    check(
        LoadOptions {
            context_tokens: Some(511),
            ..aside()
        },
        false,
    );
}

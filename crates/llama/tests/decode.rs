//! Steps, forks and KV cells on the demo model.

use std::cell::Cell;

use weir_engine::Token;
use weir_inference::model::{BatchToken, DecodeError, Model, SequenceId};
use weir_llama::{LlamaModel, LoadOptions};

#[path = "support/common.rs"]
mod common;
use common::{
    best, compute, distance, essay, greedy, lead, rows, small, smollm2, split, text, tokens,
};

/// The largest accepted difference of logits: somewhat more than `examples/noise.rs` measures.
const NOISE: f32 = 1.6;

/// Asserts that two continuations are equal up to a token at which the model's two best logits are within the noise.
fn assert_same(model: &mut LlamaModel, prompt: &[Token], a: &[Token], b: &[Token]) {
    let Some(at) = (0..a.len()).find(|&i| a[i] != b[i]) else {
        return;
    };
    let mut known = prompt.to_vec();
    known.extend_from_slice(&a[..at]);
    let spare = model.capacity().sequences - 1;
    let logits = compute(model, spare, 0, &known, 512);
    model.forget(SequenceId(spare));
    let candidates = [logits[a[at] as usize], logits[b[at] as usize]];
    let gap = (logits[best(&logits) as usize] - candidates[0].min(candidates[1])).abs();
    assert!(
        gap <= NOISE,
        "after {at} tokens: {:?} and {:?}, {gap} apart",
        text(model, a),
        text(model, b)
    );
}

#[test]
fn the_same_steps_give_the_same_logits() {
    let mut model = smollm2(&small());
    let prompt = tokens(&model, &essay(60));
    let first = compute(&mut model, 0, 0, &prompt, 32);
    model.forget(SequenceId(0));
    let second = compute(&mut model, 0, 0, &prompt, 32);
    assert_eq!(distance(&first, &second), 0.0);
    assert_eq!(first.len(), 49_152);
    assert!(first.iter().all(|logit| logit.is_finite()));
}

#[test]
fn it_answers_what_the_model_knows() {
    let mut model = smollm2(&small());
    let prompt = tokens(
        &model,
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    );
    let logits = compute(&mut model, 0, 0, &prompt, 512);
    let answer = greedy(&mut model, 0, prompt.len(), &logits, 8);
    let answer = text(&model, &answer);
    assert!(answer.contains("Paris"), "{answer}");
}

#[test]
fn whole_in_chunks_or_forked_a_prompt_is_continued_alike() {
    for options in [small(), split()] {
        chunks_and_forks(&mut smollm2(&options));
    }
}

fn chunks_and_forks(model: &mut LlamaModel) {
    let prompt = tokens(model, &format!("{}. Once upon a time", essay(80)));
    let logits = compute(model, 0, 0, &prompt, 512);
    let whole = greedy(model, 0, prompt.len(), &logits, 24);
    for chunk in [1, 7, 32] {
        let logits = compute(model, 1, 0, &prompt, chunk);
        let chunked = greedy(model, 1, prompt.len(), &logits, 24);
        model.forget(SequenceId(1));
        assert_same(model, &prompt, &whole, &chunked);
    }
    for shared in [1, prompt.len() / 2, prompt.len() - 1] {
        // Sequence 0 is longer by now: the fork takes a prefix of it.
        model.fork(SequenceId(0), SequenceId(1), shared as u32);
        let logits = compute(model, 1, shared, &prompt[shared..], 512);
        let forked = greedy(model, 1, prompt.len(), &logits, 24);
        model.forget(SequenceId(1));
        assert_same(model, &prompt, &whole, &forked);
    }
}

#[test]
fn forks_dont_disturb_each_other() {
    for options in [small(), split()] {
        four_forks(&mut smollm2(&options));
    }
}

fn four_forks(model: &mut LlamaModel) {
    let stem = tokens(model, "The three largest cities of");
    let ends = [" France are", " Japan are", " Italy are", " Brazil are"].map(|end| {
        let end = model
            .tokenizer()
            .tokenize(end, weir_inference::model::Bos::Omit);
        [stem.clone(), end].concat()
    });
    let alone = ends.clone().map(|prompt| {
        let logits = compute(model, 0, 0, &prompt, 512);
        let answer = greedy(model, 0, prompt.len(), &logits, 16);
        model.forget(SequenceId(0));
        answer
    });
    // All continuations at once, from a common prefix whose sequence is forgotten as soon as it was forked.
    compute(model, 0, 0, &stem, 512);
    (1..=4).for_each(|to| model.fork(SequenceId(0), SequenceId(to), stem.len() as u32));
    model.forget(SequenceId(0));
    let mut known = ends.clone();
    let mut computed = [stem.len(); 4];
    for _ in 0..16 {
        let mut step = Vec::new();
        let mut last = [0; 4];
        for (i, known) in known.iter().enumerate() {
            step.extend(rows(i as u32 + 1, computed[i], &known[computed[i]..]));
            (computed[i], last[i]) = (known.len(), step.len() - 1);
        }
        model.decode(&step).expect("the step fits");
        (0..4).for_each(|i| known[i].push(best(model.logits(last[i]))));
    }
    for (i, known) in known.iter().enumerate() {
        assert_same(model, &ends[i], &alone[i], &known[ends[i].len()..]);
    }
}

/// Steps are stopped before the first operation, between operations, and in the second graph of a step with split cells.
#[test]
fn a_step_that_is_given_up_leaves_nothing() {
    for options in [small(), split()] {
        let mut model = smollm2(&options);
        let prompt = tokens(&model, &essay(40));
        let (begin, rest) = prompt.split_at(8);
        let mut all = 0;
        for stop_after in [0, 1, 400, 1_200, u32::MAX] {
            compute(&mut model, 0, 0, begin, 512);
            compute(&mut model, 1, 0, begin, 512);
            let mut step = rows(0, 8, rest);
            step.extend(rows(1, 8, &rest[..1]));
            let asked = Cell::new(0);
            let wanted = || asked.replace(asked.get() + 1) < stop_after;
            let got = model.decode_while(&step, &wanted);
            if got.is_ok() {
                all = asked.get();
                assert!(stop_after >= all, "{stop_after} of {all}");
            } else {
                assert_eq!(got, Err(DecodeError::Unwanted));
                // The cache is as before: the same step can be computed again.
                model.decode(&step).unwrap();
            }
            let last = model.logits(rest.len() - 1).to_vec();
            assert!(distance(&last, &compute(&mut model, 2, 0, &prompt, 512)) < NOISE);
            (0..3).for_each(|sequence| model.forget(SequenceId(sequence)));
        }
        assert!(all > 400, "{all} operations");
    }
}

#[test]
fn a_full_cache_says_so_and_forgetting_makes_room() {
    let mut model = smollm2(&LoadOptions {
        cells: Some(256),
        sequences: Some(8),
        ..small()
    });
    let cells = model.capacity().cells as usize;
    let prompt: Vec<Token> = tokens(&model, &essay(600))
        .into_iter()
        .take(cells / 4)
        .collect();
    for round in 0..2 {
        let first = compute(&mut model, 0, 0, &prompt, 512);
        for sequence in 1..4 {
            let again = compute(&mut model, sequence, 0, &prompt, 64);
            assert!(distance(&first, &again) < NOISE);
        }
        let more = rows(4, 0, &prompt[..1]);
        assert_eq!(
            model.decode(&more),
            Err(DecodeError::CacheFull),
            "round {round}"
        );
        // A fork takes no cells, but its next token does.
        model.fork(SequenceId(0), SequenceId(5), prompt.len() as u32);
        assert_eq!(
            model.decode(&rows(5, prompt.len(), &prompt[..1])),
            Err(DecodeError::CacheFull)
        );
        model.forget(SequenceId(5));
        // The failed step took no cells: the other sequences continue once there is room.
        model.forget(SequenceId(1));
        model.decode(&more).unwrap();
        model.decode(&rows(0, prompt.len(), &prompt[..1])).unwrap();
        // Two cells are taken: a quarter of the cells less one fits, one more token doesn't.
        assert_eq!(
            model.decode(&rows(6, 0, &prompt[..cells / 4 - 1])),
            Err(DecodeError::CacheFull)
        );
        model.decode(&rows(6, 0, &prompt[..cells / 4 - 2])).unwrap();
        assert_eq!(
            model.decode(&rows(2, prompt.len(), &prompt[..1])),
            Err(DecodeError::CacheFull)
        );
        (0..8).for_each(|sequence| model.forget(SequenceId(sequence)));
    }
}

#[test]
fn steps_that_would_abort_the_process_are_faults() {
    let mut model = smollm2(&LoadOptions {
        cells: Some(512),
        sequences: Some(2),
        ..small()
    });
    let row = |token, position, sequence| BatchToken {
        token,
        position,
        sequence: SequenceId(sequence),
        output: true,
    };
    model.decode(&[row(1, 0, 0)]).unwrap();
    let check = |model: &mut LlamaModel, rows: &[BatchToken], expected: &str| {
        let Err(DecodeError::Fault(fault)) = model.decode(rows) else {
            panic!("no fault: {expected}")
        };
        assert!(
            fault.contains(expected),
            "{fault:?} should contain {expected:?}"
        );
    };
    check(
        &mut model,
        &[row(49_152, 1, 0)],
        "token 49152 is not in the vocabulary",
    );
    check(&mut model, &[row(u32::MAX, 1, 0)], "not in the vocabulary");
    check(&mut model, &[row(1, 0, 2)], "sequence 2; the context has 2");
    check(
        &mut model,
        &[row(1, 2, 0)],
        "position 2 of sequence 0, which has 1 tokens",
    );
    check(
        &mut model,
        &[row(1, 0, 0)],
        "position 0 of sequence 0, which has 1 tokens",
    );
    check(
        &mut model,
        &[row(1, 1, 1)],
        "position 1 of sequence 1, which has 0 tokens",
    );
    check(
        &mut model,
        &[row(1, 1, 0), row(1, 1, 0)],
        "position 1 of sequence 0, which has 2 tokens",
    );
    check(&mut model, &rows(0, 1, &[1; 513]), "a step of 513 rows");
    check(
        &mut model,
        &[row(1, 1, 0), row(1, 2, 0), row(1, 3, 0)],
        "3 outputs; the context takes 2",
    );
    check(
        &mut model,
        &rows(1, 0, &[1; 512])
            .into_iter()
            .chain([row(1, 1, 0)])
            .collect::<Vec<_>>(),
        "513 rows",
    );
    // The refused steps changed nothing, and neither does an empty one.
    model.decode(&[]).unwrap();
    model.decode(&[row(2, 1, 0), row(1, 0, 1)]).unwrap();
    assert!(lead(model.logits(1)) > 0.0);
}

#[test]
fn outputs_keep_their_rows() {
    let mut model = smollm2(&small());
    let texts = [
        "Two and two make",
        "Water freezes at zero degrees",
        "Once upon a",
    ];
    let prompts = texts.map(|text| tokens(&model, text));
    let alone = prompts.clone().map(|prompt| {
        let logits = compute(&mut model, 0, 0, &prompt, 512);
        model.forget(SequenceId(0));
        logits
    });
    // Tokens of the three sequences interleaved, so that outputs are neither adjacent nor in the order of sequences.
    let longest = prompts.iter().map(Vec::len).max().unwrap();
    let mut step = Vec::new();
    let mut last = [0; 3];
    for i in 0..longest {
        for (sequence, prompt) in prompts.iter().enumerate().rev() {
            if let Some(row) = rows(sequence as u32, 0, prompt).get(i) {
                step.push(*row);
                last[sequence] = step.len() - 1;
            }
        }
    }
    model.decode(&step).unwrap();
    for (sequence, alone) in alone.iter().enumerate() {
        assert!(
            distance(model.logits(last[sequence]), alone) < NOISE,
            "{}",
            texts[sequence]
        );
    }
}

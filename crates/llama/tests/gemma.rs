//! A model with a sliding window and a large vocabulary: Gemma 3 270M. Nothing is tested if the file isn't there.

use weir_inference::model::{Bos, DecodeError, Model, SequenceId};
use weir_llama::LoadOptions;

#[path = "support/common.rs"]
mod common;
use common::{compute, distance, essay, gemma3, rows, small, tokens};

/// The largest accepted difference of logits: somewhat more than `examples/noise.rs` measures.
const NOISE: f32 = 2.5;
/// The sliding window of most of the model's layers, in tokens.
const WINDOW: usize = 512;

#[test]
fn what_gemma_says_of_itself() {
    let Some(model) = gemma3(&LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    }) else {
        return;
    };
    let capacity = model.capacity();
    assert_eq!(
        (capacity.cells, capacity.sequences, capacity.outputs),
        (32_768, 64, 64)
    );
    let facts = model.facts();
    assert_eq!(facts.context_tokens, 32_768);
    assert_eq!((facts.bos.as_str(), facts.eos.as_str()), ("<bos>", "<eos>"));
    assert_eq!(facts.chat_template, None);
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.vocabulary(), 262_144);
    let [added, omitted] = [Bos::Add, Bos::Omit].map(|bos| tokenizer.tokenize("Hello", bos));
    assert_eq!(added, [&[2], omitted.as_slice()].concat());
    // The begin token isn't added twice.
    assert_eq!(tokenizer.tokenize("<bos>Hello", Bos::Add), added);
    assert_eq!(tokenizer.tokenize("", Bos::Add), [2]);
    let text = "Ελληνικά \u{1fae8}\u{10ffff} \0 日本語\n\n  x";
    let mut bytes = Vec::new();
    let tokens = tokenizer.tokenize(text, Bos::Omit);
    tokens
        .iter()
        .for_each(|&token| tokenizer.token_bytes(token, &mut bytes));
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    // Tokenized as a whole, this text would take minutes.
    assert!(tokenizer.tokenize(&"\0".repeat(1 << 20), Bos::Omit).len() > 32_768);
}

/// llama.cpp reuses cells beyond the window, even with a cache of full size, so a fork from before that point could miss
/// tokens. It must see all of them.
#[test]
fn a_fork_from_before_the_window_sees_all_its_tokens() {
    let Some(mut model) = gemma3(&LoadOptions {
        cells: Some(1_536),
        ..small()
    }) else {
        return;
    };
    let prompt = tokens(&model, &essay(1_200));
    let shared = WINDOW / 2;
    let alone = compute(&mut model, 2, 0, &prompt[..shared], 512);
    model.forget(SequenceId(2));

    // A short sequence, a long one behind it in the cache, and a third one in place of the first: the search for free cells
    // reaches those that the second sequence has left behind its window.
    compute(&mut model, 0, 0, &prompt[..256], 256);
    compute(&mut model, 1, 0, &prompt[..WINDOW + 256], 512);
    model.forget(SequenceId(0));
    compute(&mut model, 2, 0, &prompt[100..500], 400);

    model.fork(SequenceId(1), SequenceId(3), shared as u32 - 1);
    let forked = compute(&mut model, 3, shared - 1, &prompt[shared - 1..shared], 1);
    let apart = distance(&alone, &forked);
    assert!(apart < NOISE, "{apart}");
}

/// A sequence continues in the same way beyond the window, whether it was computed at once, in chunks or forked.
#[test]
fn beyond_the_window_a_fork_goes_on_like_its_parent() {
    let Some(mut model) = gemma3(&LoadOptions {
        cells: Some(2_560),
        ..small()
    }) else {
        return;
    };
    let prompt = tokens(&model, &essay(1_200));
    let prompt = &prompt[..WINDOW + 200];
    let whole = compute(&mut model, 0, 0, prompt, 512);
    let shared = WINDOW + 150;
    model.fork(SequenceId(0), SequenceId(1), shared as u32);
    // The parent gets more tokens before the fork does.
    compute(&mut model, 0, prompt.len(), &prompt[..40], 8);
    let forked = compute(&mut model, 1, shared, &prompt[shared..], 7);
    let apart = distance(&whole, &forked);
    assert!(apart < NOISE, "{apart}");
}

/// A sequence that was truncated beyond its window continues as if it had never been longer, although other sequences have
/// taken cells meanwhile.
#[test]
fn a_sequence_that_was_cut_goes_on_like_a_short_one() {
    let Some(mut model) = gemma3(&LoadOptions {
        cells: Some(2_560),
        ..small()
    }) else {
        return;
    };
    let prompt = tokens(&model, &essay(1_200));
    let kept = WINDOW + 100;
    let alone = compute(&mut model, 2, 0, &prompt[..kept + 8], 512);
    model.forget(SequenceId(2));
    compute(&mut model, 0, 0, &prompt[..kept + 300], 512);
    compute(&mut model, 1, 0, &prompt[100..500], 400);
    model.truncate(SequenceId(0), kept as u32);
    model.forget(SequenceId(1));
    compute(&mut model, 3, 0, &prompt[200..700], 250);
    let cut = compute(&mut model, 0, kept, &prompt[kept..kept + 8], 8);
    let apart = distance(&alone, &cut);
    assert!(apart < NOISE, "{apart}");
}

/// Rejected draft tokens leave no trace, also where they passed a multiple of the window before the sequence does.
#[test]
fn drafts_that_are_taken_back_leave_no_trace() {
    let Some(mut model) = gemma3(&LoadOptions {
        cells: Some(2_560),
        ..small()
    }) else {
        return;
    };
    let all = tokens(&model, &essay(1_200));
    let end = WINDOW + 40;
    let alone = compute(&mut model, 2, 0, &all[..end], 512);
    model.forget(SequenceId(2));
    let (mut at, mut others) = (WINDOW - 20, 0);
    compute(&mut model, 0, 0, &all[..at], 512);
    while at < end {
        // Two right draft tokens, and eight wrong ones.
        let mut draft = all[at..at + 2].to_vec();
        draft.extend(&all[700..708]);
        compute(&mut model, 0, at, &draft, 10);
        at += 2;
        model.truncate(SequenceId(0), at as u32);
        // Another sequence takes cells meanwhile.
        compute(&mut model, 1, others, &all[others..others + 4], 4);
        others += 4;
    }
    model.truncate(SequenceId(0), end as u32 - 1);
    let drafted = compute(&mut model, 0, end - 1, &all[end - 1..end], 1);
    let apart = distance(&alone, &drafted);
    assert!(apart < NOISE, "{apart}");
}

/// Cells behind the window still count, so the cache is full exactly when the capacity says so.
#[test]
fn the_cache_is_full_when_its_cells_are_taken() {
    let Some(mut model) = gemma3(&LoadOptions {
        cells: Some(1_024),
        ..small()
    }) else {
        return;
    };
    let prompt = tokens(&model, &essay(1_200));
    compute(&mut model, 0, 0, &prompt[..768], 512);
    compute(&mut model, 1, 0, &prompt[..256], 512);
    let more = rows(2, 0, &prompt[..1]);
    assert_eq!(model.decode(&more), Err(DecodeError::CacheFull));
    model.forget(SequenceId(0));
    model.decode(&more).unwrap();
    compute(&mut model, 3, 0, &prompt[..767], 512);
    assert_eq!(
        model.decode(&rows(4, 0, &prompt[..1])),
        Err(DecodeError::CacheFull)
    );
}

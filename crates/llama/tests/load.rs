//! Files and options that can't be loaded give a clear error; a good model is loaded at once.

use std::fs;
use std::path::Path;

use weir_inference::model::{Model, SequenceId};
use weir_llama::{FlashAttention, KvFormat, LoadOptions, load};

#[path = "support/common.rs"]
mod common;
use common::{best, compute, distance, small, smollm2, smollm2_file, tokens};

fn check_error(path: &Path, options: &LoadOptions, expected: &str) {
    let error = load(path, options)
        .expect_err("it can't be loaded")
        .to_string();
    assert!(
        error.contains(expected),
        "{error:?} should contain {expected:?}"
    );
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let whole = fs::read(smollm2_file()).unwrap();
    let options = LoadOptions::default();
    check_error(
        &folder.path().join("missing.gguf"),
        &options,
        "can't be read",
    );
    check_error(folder.path(), &options, "can't be read");
    check_error(&file("empty.gguf", b""), &options, "is not a GGUF file");
    check_error(&file("short.gguf", b"GG"), &options, "is not a GGUF file");
    check_error(
        &file("text.gguf", b"version https://git-lfs.github.com/spec/v1\n"),
        &options,
        "is not a GGUF file",
    );
    check_error(&file("magic.gguf", b"GGUF"), &options, "is it complete?");
    check_error(
        &file("noise.gguf", &[b"GGUF".as_slice(), &[0xa5; 4096]].concat()),
        &options,
        "is it complete?",
    );
    check_error(
        &file("zeros.gguf", &[b"GGUF".as_slice(), &[0; 4096]].concat()),
        &options,
        "is it complete?",
    );
    for kept in [
        24,
        1_000,
        1_000_000,
        3_000_000,
        whole.len() / 2,
        whole.len() - 1,
    ] {
        check_error(
            &file("cut.gguf", &whole[..kept]),
            &options,
            "is it complete?",
        );
    }
}

#[test]
fn options_out_of_range() {
    let path = smollm2_file();
    let none = LoadOptions::default;
    check_error(
        &path,
        &LoadOptions {
            threads: Some(0),
            ..none()
        },
        "threads must be between 1 and 512, got 0",
    );
    check_error(
        &path,
        &LoadOptions {
            sequences: Some(1_000),
            ..none()
        },
        "sequences must be between 1 and 256",
    );
    check_error(
        &path,
        &LoadOptions {
            kv_format: KvFormat::Q8_0,
            flash_attention: FlashAttention::Off,
            ..none()
        },
        "a KV cache in q8_0 needs flash attention",
    );
    // Such a cache would take close to 100 GB.
    check_error(
        &path,
        &LoadOptions {
            cells: Some(1 << 22),
            ..none()
        },
        "no room for a KV cache of 4194304 tokens",
    );
}

#[test]
fn what_the_demo_model_says_of_itself() {
    let model = smollm2(&LoadOptions::default());
    let facts = model.facts();
    assert_eq!(facts.context_tokens, 8_192);
    assert_eq!(
        (facts.bos.as_str(), facts.eos.as_str()),
        ("<|im_start|>", "<|im_end|>")
    );
    let template = facts.chat_template.as_deref().unwrap();
    assert!(
        template.contains("<|im_start|>") && template.contains("add_generation_prompt"),
        "{template}"
    );
    let capacity = model.capacity();
    assert_eq!(
        (
            capacity.cells,
            capacity.sequences,
            capacity.rows,
            capacity.outputs
        ),
        (16_384, 256, 256, 256)
    );
    assert_eq!(model.tokenizer().vocabulary(), 49_152);
}

#[test]
fn the_context_is_the_smallest_of_what_limits_it() {
    let check = |context_tokens, cells, expected| {
        let model = smollm2(&LoadOptions {
            context_tokens,
            cells,
            sequences: Some(2),
            threads: Some(1),
            ..LoadOptions::default()
        });
        assert_eq!(
            model.facts().context_tokens,
            expected,
            "{context_tokens:?} {cells:?}"
        );
    };
    check(None, Some(512), 512);
    check(Some(100), Some(512), 100);
    check(Some(10_000), Some(512), 512);
}

#[test]
fn the_cache_in_every_format_with_and_without_flash_attention() {
    let prompt = "The capital of France is";
    let logits = |kv_format, flash_attention| {
        let options = LoadOptions {
            kv_format,
            flash_attention,
            ..small()
        };
        let mut model = smollm2(&options);
        let tokens = tokens(&model, prompt);
        compute(&mut model, 0, 0, &tokens, 2)
    };
    let usual = logits(KvFormat::F16, FlashAttention::Auto);
    let fused = logits(KvFormat::F16, FlashAttention::On);
    assert!(usual == logits(KvFormat::F16, FlashAttention::Off));
    // The fused kernel rounds a 32-bit cache to 16 bits, and an 8-bit cache requires it.
    assert!(fused == logits(KvFormat::F32, FlashAttention::On));
    let eight = logits(KvFormat::Q8_0, FlashAttention::On);
    assert!(eight == logits(KvFormat::Q8_0, FlashAttention::Auto));
    for (kv_format, flash_attention) in [
        (KvFormat::F16, FlashAttention::On),
        (KvFormat::F32, FlashAttention::Off),
        (KvFormat::Q8_0, FlashAttention::On),
    ] {
        let other = logits(kv_format, flash_attention);
        let apart = distance(&usual, &other);
        let what = format!("{kv_format:?} {flash_attention:?}: {apart}");
        assert!(apart > 0.0 && apart < 2.0, "{what}");
        assert_eq!(best(&usual), best(&other), "{what}");
    }
}

#[test]
fn two_models_at_once_dont_disturb_each_other() {
    let mut first = smollm2(&small());
    let mut second = smollm2(&LoadOptions {
        threads: Some(2),
        ..small()
    });
    let prompt = tokens(&first, "The capital of France is");
    let alone = best(&compute(&mut first, 0, 0, &prompt, 512));
    let both = std::thread::scope(|scope| {
        let others = scope.spawn(|| best(&compute(&mut second, 3, 0, &prompt, 512)));
        first.forget(SequenceId(0));
        (
            best(&compute(&mut first, 0, 0, &prompt, 512)),
            others.join().unwrap(),
        )
    });
    assert_eq!(both, (alone, alone));
    // The tokenizer outlives its model.
    let tokenizer = second.tokenizer();
    drop(second);
    assert_eq!(
        tokenizer
            .tokenize("The", weir_inference::model::Bos::Omit)
            .len(),
        1
    );
    assert_eq!(best(&compute(&mut first, 1, 0, &prompt, 512)), alone);
}

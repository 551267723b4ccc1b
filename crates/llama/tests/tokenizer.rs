//! Text to tokens and back, on the demo model.

use std::thread;

use weir_engine::Token;
use weir_inference::model::{Bos, Model, Tokenizer};
use weir_llama::LoadOptions;

#[path = "support/common.rs"]
mod common;
use common::{compute, essay, small, smollm2, tokens};

fn bytes(tokenizer: &dyn Tokenizer, tokens: &[Token]) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokens
        .iter()
        .for_each(|&token| tokenizer.token_bytes(token, &mut bytes));
    bytes
}

/// Text without the names of special tokens comes back as it was.
fn check_round_trip(tokenizer: &dyn Tokenizer, text: &str) {
    let tokens = tokenizer.tokenize(text, Bos::Omit);
    assert!(
        tokens.iter().all(|&token| token < tokenizer.vocabulary()),
        "{text:?}"
    );
    let back = bytes(tokenizer, &tokens);
    assert_eq!(String::from_utf8_lossy(&back), text);
}

#[test]
fn texts_come_back_as_they_were() {
    let model = smollm2(&small());
    let tokenizer = model.tokenizer();
    for text in [
        "",
        " ",
        "\n",
        "\0",
        "a\0b\0\0",
        "Hello, world!",
        "  leading and trailing  ",
        "tabs\tand\r\nlines\n\n\n",
        "Ελληνικά, русский, العربية, हिन्दी, 日本語, 한국어",
        "👩‍👩‍👧‍👦 🏳️‍🌈 é e\u{301} \u{202e}abc\u{202c} \u{feff}",
        "0123456789 3.14159 1e10",
        "\u{10ffff}\u{e000}\u{fffd}",
        "<|not a token|> <|im_start <|im_ end|>",
        "fn main() { println!(\"{}\", 1 << 3); }",
    ] {
        check_round_trip(&*tokenizer, text);
    }
    check_round_trip(&*tokenizer, &essay(5_000));
}

#[test]
fn random_texts_come_back_as_they_were() {
    let model = smollm2(&small());
    let tokenizer = model.tokenizer();
    let mut state = 1u64;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    };
    // This vocabulary lacks a few control characters, and the planes 4 to 13, which have no characters.
    let known = |c: &char| {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        bytes(&*tokenizer, &tokenizer.tokenize(text, Bos::Omit)) == text.as_bytes()
    };
    let ranges = [
        0x00..0x80,
        0x20..0x7f,
        0x80..0x800,
        0x800..0xd800,
        0x1_f300..0x1_fb00,
        0x0..0x4_0000,
    ];
    let mut characters = 0;
    for _ in 0..2_000 {
        let range = &ranges[next() as usize % ranges.len()];
        let length = next() % 80;
        let mut draw = || char::from_u32(range.start + next() as u32 % (range.end - range.start));
        let text: String = (0..length).filter_map(|_| draw()).filter(known).collect();
        characters += text.chars().count();
        check_round_trip(&*tokenizer, &text);
    }
    assert!(characters > 70_000, "{characters}");
}

#[test]
fn names_of_special_tokens_become_tokens_without_text() {
    let model = smollm2(&small());
    let tokenizer = model.tokenizer();
    let one = |text: &str| {
        let tokens = tokenizer.tokenize(text, Bos::Omit);
        assert_eq!(tokens.len(), 1, "{text}");
        tokens[0]
    };
    let (start, end, endoftext) = (one("<|im_start|>"), one("<|im_end|>"), one("<|endoftext|>"));
    assert_eq!((start, end, endoftext), (1, 2, 0));
    assert_eq!(
        [start, end, endoftext].map(|token| tokenizer.is_end(token)),
        [false, true, true]
    );
    let tokens = tokenizer.tokenize("<|im_start|>user\nHi<|im_end|>\n", Bos::Omit);
    assert_eq!(
        (
            tokens[0],
            tokens.iter().filter(|&&token| token == end).count()
        ),
        (start, 1)
    );
    assert_eq!(bytes(&*tokenizer, &tokens), b"user\nHi\n");
    for beyond in [tokenizer.vocabulary(), Token::MAX, 1 << 31] {
        assert_eq!(bytes(&*tokenizer, &[beyond]), b"");
        assert!(!tokenizer.is_end(beyond));
    }
}

#[test]
fn pieces_are_bytes_of_whole_texts() {
    let model = smollm2(&small());
    let tokenizer = model.tokenizer();
    // A rare character takes several tokens, each with a part of its bytes.
    let tokens = tokenizer.tokenize("\u{1fae8}", Bos::Omit);
    assert!(tokens.len() > 1);
    assert!(
        tokens
            .iter()
            .any(|&token| String::from_utf8(bytes(&*tokenizer, &[token])).is_err())
    );
    // Every token has bytes, and as many of them as are said.
    let all: Vec<Token> = (0..tokenizer.vocabulary()).collect();
    let together = bytes(&*tokenizer, &all);
    let apart: usize = all
        .iter()
        .map(|&token| bytes(&*tokenizer, &[token]).len())
        .sum();
    assert_eq!(together.len(), apart);
    assert!(apart > 200_000);
}

/// A text that fits the context comes back unchanged; a longer one gets enough tokens to be refused, and fast.
#[test]
fn long_texts() {
    let model = smollm2(&LoadOptions {
        cells: Some(8_192),
        ..small()
    });
    let tokenizer = model.tokenizer();
    for part in [
        "a", " ", "1", "\n", "=", "é", "日", "👍", "ab ", "x1 ", "\0", "'s", "<",
    ] {
        for size in [600, 5_000, 8_000] {
            check_round_trip(&*tokenizer, &part.repeat(size / part.len()));
        }
        assert!(
            tokenizer.tokenize(&part.repeat(1 << 20), Bos::Omit).len() > 8_192,
            "{part:?}"
        );
    }
    // Tokenized as a whole, this text would take minutes.
    assert!(
        tokenizer
            .tokenize(&"<|im_end|>".repeat(100_000), Bos::Omit)
            .len()
            > 8_192
    );
}

/// A text that fits the context gets the tokens of the whole text, wherever it was cut for counting.
#[test]
fn a_text_that_fits_has_the_tokens_of_the_whole() {
    let model = smollm2(&LoadOptions {
        cells: Some(8_192),
        ..small()
    });
    let tokenizer = model.tokenizer();
    // Byte 4,096 is in the middle of one of these words.
    for part in [
        " mountainside",
        " internationally",
        " extraordinary",
        "<|im_start|>user\nHow is the weather on\n <|im_end|>\n ",
        "<|im_end|>",
    ] {
        let tokens = tokenizer.tokenize(part, Bos::Omit);
        for times in [1, 7, 100, 150, 300, 600] {
            assert_eq!(
                tokenizer.tokenize(&part.repeat(times), Bos::Omit),
                tokens.repeat(times),
                "{times} {part:?}"
            );
        }
    }
}

#[test]
fn tokenizing_while_decoding() {
    let mut model = smollm2(&small());
    let prompt = tokens(&model, &essay(100));
    let expected = compute(&mut model, 0, 0, &prompt, 16);
    let tokenizers = [model.tokenizer(), model.tokenizer()];
    thread::scope(|scope| {
        let others = tokenizers.map(|tokenizer| {
            scope.spawn(move || {
                for words in 0..20 {
                    check_round_trip(&*tokenizer, &essay(words * 10));
                }
            })
        });
        assert_eq!(compute(&mut model, 1, 0, &prompt, 16).len(), expected.len());
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

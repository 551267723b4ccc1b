use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weir_inference::specials::ByteSet;

use super::*;
use crate::load::open;
use crate::models;

/// Tokenizers of the models that are there, with contexts of 2,048 tokens.
fn tokenizers() -> Vec<(&'static str, LlamaTokenizer)> {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-phi.gguf");
    let gemma = models::models().join("gemma-3-270m-q4_k_m.gguf");
    let files = [
        ("smollm2", models::smollm2_file()),
        ("phi", PathBuf::from(fixture)),
        ("gemma", gemma),
    ];
    let there = files.into_iter().filter(|(_, path)| path.is_file());
    there.map(|(name, path)| (name, tokenizer(&path))).collect()
}

fn tokenizer(path: &Path) -> LlamaTokenizer {
    open(path).expect("the model loads").tokenizer(2_048)
}

fn bytes(tokenizer: &LlamaTokenizer, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    tokens
        .iter()
        .for_each(|&token| tokenizer.token_bytes(token, &mut bytes));
    String::from_utf8(bytes).expect("whole characters")
}

/// Texts made of names of special tokens and of characters that names consist of.
fn texts(tokenizer: &LlamaTokenizer) -> impl Strategy<Value = String> + use<> {
    let mut parts: Vec<String> = [
        "<", ">", "|", " ", "  ", "\n", "\t", "the", " weir", "日", "é", "user", "\0", "'s", "12",
    ]
    .map(str::to_owned)
    .into();
    // A few names of each kind, of thousands.
    for kind in [SpecialKind::Control, SpecialKind::Word] {
        let names = tokenizer
            .specials
            .iter()
            .filter(|special| special.kind == kind);
        parts.extend(names.take(20).map(|special| special.name.clone()));
    }
    prop::collection::vec(prop::sample::select(parts), 0..30).prop_map(|parts| parts.concat())
}

fn check(tokenizer: &LlamaTokenizer, test: impl Fn(String) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(text in texts(tokenizer))| test(text)?);
}

#[test]
fn special_tokens_are_those_that_llama_cpp_finds() {
    for (name, tokenizer) in tokenizers() {
        check(&tokenizer, |text| {
            let ours = tokenizer.encode(&text, Names::All, Bos::Omit);
            let theirs = tokenizer.tokens_by(&text, true).unwrap();
            prop_assert_eq!(ours.tokens, theirs, "{}: {:?}", name, &text);
            let ours = tokenizer.encode(&text, Names::Words, Bos::Omit);
            let theirs = tokenizer.tokens_by(&text, false).unwrap();
            prop_assert_eq!(ours.tokens, theirs, "{}: {:?}", name, &text);
            Ok(())
        });
    }
}

/// Names of special tokens in a caller's text are text, and the text stays as it was written.
#[test]
fn what_a_caller_wrote_is_text() {
    let is_symbol = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    for (name, tokenizer) in tokenizers() {
        let marks = |tokens: &[Token]| -> Vec<Token> {
            let is_mark = |&token: &Token| {
                let name = tokenizer.specials.name(token);
                name.is_some_and(|name| name.contains(is_symbol))
            };
            tokens.iter().copied().filter(is_mark).collect()
        };
        let mut controls = tokenizer.specials.iter();
        let begin = controls
            .find(|special| special.kind == SpecialKind::Control)
            .unwrap();
        check(&tokenizer, |text| {
            let prompt = format!("{}{text}{}", begin.name, begin.name);
            let symbols = text.char_indices().filter(|&(_, c)| is_symbol(c));
            let written: ByteSet = symbols.map(|(at, _)| begin.name.len() + at).collect();
            let encoded = tokenizer.encode(&prompt, Names::AllBut(&written), Bos::Omit);
            let tokens = encoded.tokens;
            prop_assert_eq!(marks(&tokens), [begin.token; 2], "{}: {:?}", name, &text);
            let shown = bytes(&tokenizer, &tokens[1..tokens.len() - 1]);
            let expected = if begin.strips_right {
                text.trim_ascii_start()
            } else {
                &text
            };
            // phi's tokenizer puts one space in front of texts.
            let prefix = if name == "phi" && !expected.is_empty() {
                " "
            } else {
                ""
            };
            prop_assert_eq!(
                shown,
                format!("{prefix}{expected}"),
                "{}: {:?}",
                name,
                &text
            );
            Ok(())
        });
    }
}

/// A text that doesn't fit the context is counted exactly, wherever it was cut.
#[test]
fn counts_beyond_the_context() {
    let long = |part: &str| part.repeat(150_000 / part.len());
    let kinds = [
        long("A weir is a low dam across a river; fish pass over it. Who built 12,345 of them?\n"),
        long("fn main() {\n    let x = vec![1, 2, 3];\n    println!(\"{x:?}\");\n}\n\n"),
        long("{\"id\": 7, \"tags\": [\"a\", \"b\"], \"text\": \"Grüße\\n\"},"),
        long("日本語の文章は、空白がありません。それでも数えます。"),
        long("2026-11-30T12:00:00Z INFO weir{id=f00d}: request took=12ms\n"),
        long("QmFzZTY0+Lw7/dGhlIHdlaXI9PQ+"),
    ];
    for (name, tokenizer) in tokenizers().into_iter().filter(|(name, _)| *name != "phi") {
        for text in &kinds {
            let encoded = tokenizer.encode(text, Names::All, Bos::Omit);
            let whole = with_stack(text.len(), || tokenizer.tokens_by(text, true))
                .unwrap()
                .unwrap();
            assert!(whole.len() > 2_048, "{name}: {text:.40}");
            assert_eq!(encoded.tokens.len(), whole.len(), "{name}: {text:.40}");
            assert!(
                encoded.complete && encoded.tokens == whole,
                "{name}: {text:.40}"
            );
        }
    }
}

/// A text without seams, or a very long one, is counted until it exceeds the context.
#[test]
fn counts_that_end_early() {
    for (name, tokenizer) in tokenizers() {
        for part in ["a", "\0", "日", "ACGT", " a"] {
            let text = part.repeat((3 << 20) / part.len());
            let encoded = tokenizer.encode(&text, Names::All, Bos::Omit);
            assert!(!encoded.complete, "{name}: {part:?}");
            assert!(encoded.tokens.len() > 2_048, "{name}: {part:?}");
            // A smaller text may be counted as a whole.
            let text = part.repeat(60_000 / part.len());
            let encoded = tokenizer.encode(&text, Names::All, Bos::Omit);
            let whole = with_stack(text.len(), || tokenizer.tokens_by(&text, true))
                .unwrap()
                .unwrap();
            let counted = encoded.tokens.len();
            assert!(
                if encoded.complete {
                    counted == whole.len()
                } else {
                    counted <= whole.len()
                },
                "{name}: {part:?}"
            );
        }
        // Each name of a special token counts as one token.
        let text = tokenizer
            .specials
            .iter()
            .next()
            .unwrap()
            .name
            .repeat(100_000);
        let encoded = tokenizer.encode(&text, Names::All, Bos::Omit);
        assert_eq!(
            (encoded.tokens.len(), encoded.complete),
            (100_000, true),
            "{name}"
        );
    }
}

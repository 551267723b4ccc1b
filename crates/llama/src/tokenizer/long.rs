//! Long texts, which llama.cpp's tokenizers don't bear: some take a quadratic time (a megabyte of NULs seven
//! minutes, of special tokens two), some recurse for each character until the stack overflows, which ends the
//! process. So a text that can't fit the context isn't tokenized as a whole, one that can is cut where that
//! changes nothing, and both happen on a thread with enough stack.

use std::ffi::CStr;
use std::{io, thread};

use llama_cpp_sys_2 as sys;

use crate::shim::Weights;

/// Texts up to this size are tokenized where they are.
pub(super) const SHORT_BYTES: usize = 512;
/// Texts up to this size are tokenized as a whole. Larger ones are first counted in parts of it.
pub(super) const PART_BYTES: usize = 4096;
/// Tokens that a cut in the middle of a word adds, at most, on average.
pub(super) const CUT_TOKENS: usize = 8;

/// `std::regex`, on which some models' tokenizers stand, takes 300 to 400 bytes a character.
const STACK_PER_BYTE: usize = 1024;
const STACK: usize = 1 << 20;

/// Runs `call` with stack enough to tokenize a text of `bytes`.
pub(super) fn with_stack<T: Send>(bytes: usize, call: impl FnOnce() -> T + Send) -> io::Result<T> {
    let builder = thread::Builder::new().stack_size(STACK + bytes.saturating_mul(STACK_PER_BYTE));
    thread::scope(|scope| {
        let tokenizing = builder.spawn_scoped(scope, call)?;
        tokenizing
            .join()
            .map_err(|_| io::Error::other("tokenizing panicked"))
    })
}

/// Parts of about `PART_BYTES`, none twice as large, cut anywhere between characters.
pub(super) fn anywhere(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let cut = if rest.len() <= 2 * PART_BYTES {
            rest.len()
        } else {
            rest.floor_char_boundary(PART_BYTES)
        };
        let (part, after) = rest.split_at(cut);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// Names of special tokens before which a text can be cut: what is on either side is tokenized by itself anyway.
#[derive(Debug)]
pub(super) struct Cuts {
    names: Vec<String>,
}

/// What llama.cpp looks for in a text before it tokenizes the rest.
const SPECIAL: sys::llama_token_attr = sys::LLAMA_TOKEN_ATTR_CONTROL
    | sys::LLAMA_TOKEN_ATTR_USER_DEFINED
    | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
/// More names than chat templates use make the search slow.
const NAMES_MAX: usize = 64;

impl Cuts {
    pub(super) fn new(weights: &Weights, vocabulary: u32) -> Self {
        let vocab = weights.vocab();
        let mut specials = Vec::new();
        for token in 0..vocabulary.cast_signed() {
            // SAFETY: `weights` keeps the vocabulary alive, and the token is one of its.
            let attributes = unsafe { sys::llama_vocab_get_attr(vocab, token) };
            if attributes & SPECIAL == 0 {
                continue;
            }
            // SAFETY: as above.
            let text = unsafe { sys::llama_vocab_get_text(vocab, token) };
            // SAFETY: the text belongs to the vocabulary, ends with NUL and doesn't change.
            let name = unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned();
            // Such a token takes the white space before it along.
            let takes_left = attributes & sys::LLAMA_TOKEN_ATTR_LSTRIP != 0;
            let cuts = attributes & sys::LLAMA_TOKEN_ATTR_CONTROL != 0 && !takes_left;
            specials.push((name, cuts));
        }
        Cuts::among(&specials)
    }

    /// The names that can't be part of another special token's name, nor another begin within them: all that
    /// begin with a character which no name has further on.
    fn among(specials: &[(String, bool)]) -> Self {
        let mut starts: Vec<char> = specials
            .iter()
            .filter_map(|(name, _)| name.chars().next())
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let further = |c: char| {
            specials
                .iter()
                .any(|(name, _)| name.chars().skip(1).any(|other| other == c))
        };
        let clear: Vec<char> = starts.iter().copied().filter(|&c| !further(c)).collect();
        let holds_a_start = |name: &str| name.chars().skip(1).any(|c| starts.contains(&c));
        let names = specials
            .iter()
            .filter(|(name, cuts)| *cuts && name.chars().next().is_some_and(|c| clear.contains(&c)))
            .filter(|(name, _)| !holds_a_start(name))
            .map(|(name, _)| name.clone())
            .take(NAMES_MAX)
            .collect();
        Cuts { names }
    }

    /// The text in parts of at least `PART_BYTES`, each but the first beginning with a special token.
    pub(super) fn parts<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(cut) = self.next(rest) {
            let (part, after) = rest.split_at(cut);
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        parts
    }

    fn next(&self, text: &str) -> Option<usize> {
        let from = text.ceil_char_boundary(PART_BYTES);
        let found = |&(at, _): &(usize, char)| {
            self.names
                .iter()
                .any(|name| text[from + at..].starts_with(name))
        };
        text[from..]
            .char_indices()
            .find(found)
            .map(|(at, _)| from + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_overlap_are_no_cuts() {
        let check = |specials: &[(&str, bool)], expected: &[&str]| {
            let specials: Vec<_> = specials
                .iter()
                .map(|&(name, cuts)| (name.to_owned(), cuts))
                .collect();
            assert_eq!(Cuts::among(&specials).names, expected, "{specials:?}");
        };
        check(
            &[
                ("<|im_start|>", true),
                ("<|im_end|>", true),
                ("\n\n", false),
            ],
            &["<|im_start|>", "<|im_end|>"],
        );
        check(&[("<s>", true), ("<table>", false)], &["<s>"]);
        check(&[("<s>", true), ("a<b", false)], &[]);
        check(&[("<s>", true), ("s>t", false), ("[I]", true)], &["[I]"]);
        check(&[("", true)], &[]);
    }

    #[test]
    fn parts_are_long_and_together_the_text() {
        let cuts = Cuts {
            names: vec!["<s>".to_owned()],
        };
        let check = |text: String, expected: &[usize]| {
            let parts = cuts.parts(&text);
            assert_eq!(parts.concat(), text);
            assert_eq!(
                parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
                expected
            );
        };
        check(String::new(), &[0]);
        check("<s>".to_owned(), &[3]);
        check("é".repeat(10_000), &[20_000]);
        check("<s>".repeat(3_000), &[4_098, 4_098, 804]);
        check(format!("{}<s>end", "日".repeat(2_000)), &[6_000, 6]);
        let lengths = |characters| {
            anywhere(&"日".repeat(characters))
                .map(str::len)
                .collect::<Vec<_>>()
        };
        assert_eq!((lengths(0), lengths(2_000)), (vec![], vec![6_000]));
        assert_eq!(lengths(4_000), [4_095, 7_905]);
    }
}

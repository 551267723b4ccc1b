//! Long texts, which llama.cpp's tokenizers can't handle: some take quadratic time, some recurse for each character until
//! the stack overflows, which ends the process. So a text that may not fit the context is first counted in parts, cut at
//! seams: places where the tokens of the two sides are those of the whole. A text that fits is then tokenized as a whole.
//! Both happen on a thread with a large enough stack.

use std::ops::Range;
use std::{io, thread};

/// Texts up to this size, in bytes, are tokenized on the calling thread.
pub(super) const SHORT_BYTES: usize = 512;
/// Texts up to this size, in bytes, are tokenized as a whole. Larger ones are first counted in parts of about this size.
pub(super) const PART_BYTES: usize = 4096;
/// The most tokens, on average, that a cut in the middle of a word adds.
pub(super) const CUT_TOKENS: usize = 8;
/// Texts up to this size, in bytes, are counted to their end; larger ones until they have more tokens than fit.
pub(super) const COUNTED_BYTES: usize = 1 << 20;

/// Bytes on either side of a place that decide whether it is a seam.
const WINDOW_BYTES: usize = 192;
/// The most places that are tried for each cut.
const TRIES: usize = 16;

/// Bytes of stack per byte of text. `std::regex`, which some models' tokenizers use, takes 300 to 400 bytes a character.
const STACK_PER_BYTE: usize = 1024;
const STACK: usize = 1 << 20;

/// Runs `call` on a thread with enough stack to tokenize a text of `bytes`.
pub(super) fn with_stack<T: Send>(bytes: usize, call: impl FnOnce() -> T + Send) -> io::Result<T> {
    if bytes <= SHORT_BYTES {
        return Ok(call());
    }
    let builder = thread::Builder::new().stack_size(STACK + bytes.saturating_mul(STACK_PER_BYTE));
    thread::scope(|scope| {
        let tokenizing = builder.spawn_scoped(scope, call)?;
        tokenizing
            .join()
            .map_err(|_| io::Error::other("tokenizing panicked"))
    })
}

/// A part of a long text, as a range of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<usize>,
    /// Whether the part begins at a seam; the beginning of the text counts as one.
    pub(super) at_seam: bool,
}

/// Cuts a text into parts of about [`PART_BYTES`], and at most twice that, and passes them to `take` until that says no. Cuts
/// are at seams, or between any characters if there are none. `is_seam` gets the text around a place, and the place in it.
pub(super) fn parts<E>(
    text: &str,
    mut is_seam: impl FnMut(&str, usize) -> Result<bool, E>,
    mut take: impl FnMut(Part) -> Result<bool, E>,
) -> Result<(), E> {
    let mut part = Part {
        range: 0..0,
        at_seam: true,
    };
    while text.len() - part.range.start > 2 * PART_BYTES {
        let from = text.floor_char_boundary(part.range.start + PART_BYTES);
        let to = text.floor_char_boundary(part.range.start + 2 * PART_BYTES);
        let mut seam = None;
        for place in places(text, from..to).take(TRIES) {
            let begin = text.ceil_char_boundary(place.saturating_sub(WINDOW_BYTES));
            let end = text.floor_char_boundary((place + WINDOW_BYTES).min(text.len()));
            if is_seam(&text[begin..end], place - begin)? {
                seam = Some(place);
                break;
            }
        }
        part.range.end = seam.unwrap_or(from);
        let next = Part {
            range: part.range.end..part.range.end,
            at_seam: seam.is_some(),
        };
        if !take(std::mem::replace(&mut part, next))? {
            return Ok(());
        }
    }
    part.range.end = text.len();
    take(part).map(drop)
}

/// Places where a word begins or ends: first those before white space, then others.
fn places(text: &str, range: Range<usize>) -> impl Iterator<Item = usize> {
    let words = text[range.clone()]
        .char_indices()
        .zip(text[range.clone()].char_indices().skip(1));
    let begins = move |wanted: fn(Class, Class) -> bool| {
        let words = words.clone();
        words.filter(move |&((_, before), (_, c))| wanted(Class::of(before), Class::of(c)))
    };
    let spaced = begins.clone()(|before, c| before != Class::Space && c == Class::Space);
    let others = begins(|before, c| before != c && before != Class::Space && c != Class::Space);
    spaced
        .take(TRIES / 2)
        .chain(others)
        .map(move |(_, (at, _))| range.start + at)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Word,
    Other,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            c if c.is_whitespace() => Class::Space,
            c if c.is_alphanumeric() => Class::Word,
            _ => Class::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn parts_are_the_text_cut_at_seams() {
        let check = |text: &str, good: fn(&str, usize) -> bool, seams: bool, sizes: &[usize]| {
            let mut found = Vec::new();
            let is_seam = |window: &str, place| Ok::<_, Infallible>(good(window, place));
            let Ok(()) = parts(text, is_seam, |part| {
                found.push(part);
                Ok(true)
            });
            let texts: String = found.iter().map(|part| &text[part.range.clone()]).collect();
            assert_eq!(texts, text);
            assert!(
                found.iter().skip(1).all(|part| part.at_seam == seams),
                "{found:?}"
            );
            assert!(found[0].at_seam);
            assert_eq!(
                found
                    .iter()
                    .map(|part| part.range.len())
                    .collect::<Vec<_>>(),
                sizes
            );
        };
        let any = |window: &str, place| window[place..].starts_with(' ');
        check("", any, true, &[0]);
        check(&"a ".repeat(4_096), any, true, &[8_192]);
        check(&"a ".repeat(5_000), any, true, &[4_097, 5_903]);
        check(&"a".repeat(10_000), any, false, &[4_096, 5_904]);
        check(&"日".repeat(4_000), any, false, &[4_095, 7_905]);
        check(&"日。".repeat(2_000), |_, _| true, true, &[4_098, 7_902]);
        check(&"a ".repeat(5_000), |_, _| false, false, &[4_096, 5_904]);
        check(
            &"a ".repeat(5_000),
            |window, _| window.len() != 2 * WINDOW_BYTES,
            false,
            &[4_096, 5_904],
        );
    }

    #[test]
    fn cutting_ends_when_nobody_wants_more() {
        let mut taken = 0;
        let Ok(()) = parts(
            &"a ".repeat(50_000),
            |_, _| Ok::<_, Infallible>(true),
            |_| {
                taken += 1;
                Ok(taken < 3)
            },
        );
        assert_eq!(taken, 3);
    }
}

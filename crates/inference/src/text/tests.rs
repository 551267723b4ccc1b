use proptest::prelude::*;
use weir_engine::request::Stop;

use super::TextStream;

fn stop(strings: &[&str]) -> Stop {
    Stop::new(strings.iter().map(|&string| string.to_owned()).collect()).unwrap()
}

/// The text that each push returns, with `|` if it stopped, and the text that `finish` returns.
fn outputs(stop: &Stop, pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = TextStream::new(stop);
    let mut outputs = Vec::new();
    for piece in pieces {
        let pushed = stream.push(piece);
        outputs.push(if pushed.stopped {
            pushed.text + "|"
        } else {
            pushed.text
        });
    }
    outputs.push(stream.finish());
    outputs
}

#[test]
fn text_comes_out_as_soon_as_it_is_decided() {
    let check = |stops: &[&str], pieces: &[&str], expected: &[&str]| {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        assert_eq!(
            outputs(&stop(stops), &pieces),
            expected,
            "{stops:?} {pieces:?}"
        );
    };
    check(&[], &["a", "", "bc"], &["a", "", "bc", ""]);
    // Text is held back while it may be a stop string or the beginning of one, and returned once it can't be.
    check(&["END"], &["xE", "N", "D"], &["x", "", "|", ""]);
    check(&["END"], &["xE", "N", "E", "y"], &["x", "", "EN", "Ey", ""]);
    check(&["END"], &["xEN"], &["x", "EN"]);
    check(&["aab"], &["aaaa", "b"], &["aa", "|", ""]);
    check(&["abab!"], &["abab", "ab", "!"], &["", "ab", "|", ""]);
    // No text follows a stop string, neither of the same token nor of a later one.
    check(&["\n"], &["one\ntwo", "three"], &["one|", "|", ""]);
    check(&["bc"], &["abcbc"], &["a|", ""]);
    // The stop string that begins first counts, not the one that ends first or is first in the list.
    check(&["cd", "abcdef"], &["xabcd", "ef"], &["x", "|", ""]);
    check(&["cd", "abcdef"], &["xabcd", "eX"], &["x", "ab|", ""]);
    check(&["cd", "abcdef"], &["xabcd"], &["x", "ab"]);
    check(&["cd", "ab"], &["xabcd"], &["x|", ""]);
    check(&["ab", "abc"], &["xab"], &["x|", ""]);
    // A character that only has its first byte in common with a stop string isn't one.
    check(&["é"], &["aè", "é"], &["aè", "|", ""]);
    check(&["日本"], &["日", "日", "本"], &["", "日", "|", ""]);
}

#[test]
fn characters_are_whole() {
    let check = |pieces: &[&[u8]], expected: &[&str]| {
        assert_eq!(outputs(&stop(&["é!"]), pieces), expected, "{pieces:x?}");
    };
    check(&[b"a\xf0\x9f", b"\x98", b"\x80b"], &["a", "", "😀b", ""]);
    check(&[b"\xc3", b"\xa9", b"!"], &["", "", "|", ""]);
    check(&[b"\xc3", b"\xa9", b"?"], &["", "", "é?", ""]);
    // Bytes that can't be a character are replaced once that is certain, …
    check(&[b"\xff", b"a"], &["\u{fffd}", "a", ""]);
    check(&[b"\xe2\x82", b"a"], &["", "\u{fffd}a", ""]);
    check(&[b"\xe2\x82", b"\xe2\x82\xac"], &["", "\u{fffd}€", ""]);
    // … and a character that is never completed is dropped.
    check(&[b"a\xf0\x9f\x98"], &["a", ""]);
}

/// Decodes the whole text at once: up to the stop string that begins first, without an incomplete end.
fn naive(stops: &Stop, bytes: &[u8]) -> String {
    let incomplete = |tail: &[u8]| {
        std::str::from_utf8(tail)
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    let cut = (1..=bytes.len().min(3))
        .find(|cut| incomplete(&bytes[bytes.len() - cut..]))
        .unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..bytes.len() - cut]).into_owned();
    let end = stops
        .strings()
        .iter()
        .filter_map(|stop| text.find(stop.as_str()))
        .min();
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The most bytes that may be held back: the longest end of the text with which a stop string begins.
fn longest_beginning(stops: &Stop, text: &str) -> usize {
    let starts = text.char_indices().map(|(i, _)| &text[i..]);
    let begins = |end: &&str| stops.strings().iter().any(|stop| stop.starts_with(*end));
    starts.filter(begins).map(str::len).max().unwrap_or(0)
}

/// Few letters, so that stop strings occur; some of several bytes, which share their first ones.
fn letters(most: usize) -> impl Strategy<Value = String> {
    let letter = prop_oneof![4 => Just("a"), 3 => Just("b"), 1 => Just("é"), 1 => Just("è"), 1 => Just("日")];
    prop::collection::vec(letter, 1..=most).prop_map(|letters| letters.concat())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let broken = prop::sample::select(vec![
        b"\xff".to_vec(),
        b"\xc3".to_vec(),
        b"\xe6\x97".to_vec(),
        b"\xa9".to_vec(),
    ]);
    let piece = prop_oneof![6 => letters(4).prop_map(String::into_bytes), 1 => broken];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_split_gives_the_same_text(
        bytes in bytes(),
        stops in prop::collection::vec(letters(4), 0..=4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stops = Stop::new(stops).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();

        let mut stream = TextStream::new(&stops);
        let (mut out, mut stopped) = (String::new(), false);
        for cut in cuts.windows(2) {
            let pushed = stream.push(&bytes[cut[0]..cut[1]]);
            prop_assert!(!stopped || (pushed.stopped && pushed.text.is_empty()));
            stopped = pushed.stopped;
            out += &pushed.text;
            // Text with which no stop string can begin isn't held back.
            let so_far = naive(&Stop::default(), &bytes[..cut[1]]);
            if naive(&stops, &bytes[..cut[1]]) == so_far {
                prop_assert_eq!(so_far.len() - out.len(), longest_beginning(&stops, &so_far));
            }
        }
        out += &stream.finish();
        prop_assert_eq!(&out, &naive(&stops, &bytes));
        prop_assert!(stops.strings().iter().all(|stop| !out.contains(stop.as_str())));
    }
}

#[test]
fn stop_strings_are_shown_if_they_are_to_be() {
    let check = |stops: &[&str], pieces: &[&str], expected: &[&str]| {
        let mut stop = stop(stops);
        stop.is_shown = true;
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        assert_eq!(outputs(&stop, &pieces), expected, "{stops:?} {pieces:?}");
    };
    check(&["END"], &["xE", "N", "DE"], &["x", "", "END|", ""]);
    check(&["ab", "abc"], &["xab"], &["xab|", ""]);
    check(&["cd", "abcdef"], &["xabcd"], &["x", "abcd"]);
    check(&["\n"], &["one\ntwo"], &["one\n|", ""]);
}

#[test]
fn text_may_be_left_unsearched() {
    let mut stream = TextStream::new(&stop(&["ab"]));
    assert_eq!(stream.push_unsearched(b"xab").text, "xab");
    assert_eq!(stream.push_unsearched(b"a").text, "a");
    // A stop string that would begin in the unsearched text isn't found.
    assert_eq!(stream.push(b"b").text, "b");
    assert_eq!(stream.push(b"ya").text, "y");
    let last = stream.push(b"b");
    assert!(last.stopped && last.text.is_empty());
}

//! Log-probabilities, in the formats of chats, plain completions and prompts.

use std::collections::HashSet;
use std::fmt::Write;

use weir_api::prompt_logprobs::{Candidate, Candidates, PromptLogprobs};
use weir_api::{chat, completion};
use weir_engine::{Token, TokenLogprob};

use super::{FoldedPrompt, ResponseShape};

/// JSON has no infinity. OpenAI and vLLM write this number for a token with probability 0.
const LOGPROB_MIN: f32 = -9999.0;

/// How the answer names tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// By their text.
    Text,
    /// By their ids, as in `token_id:5`.
    Ids,
}

/// The log-probabilities of a chat's content.
pub(crate) fn chat(logprobs: &[TokenLogprob], spelling: Spelling) -> chat::Logprobs {
    let spell = |token: Token, bytes: &[u8]| match spelling {
        Spelling::Text => String::from_utf8_lossy(bytes).into_owned(),
        Spelling::Ids => token_id(token),
    };
    let entry = |entry: &TokenLogprob| chat::TokenLogprob {
        token: spell(entry.token, &entry.bytes),
        logprob: finite(entry.logprob.unwrap_or(LOGPROB_MIN)),
        bytes: entry.bytes.clone(),
        top_logprobs: entry
            .top
            .iter()
            .map(|top| chat::TopLogprob {
                token: spell(top.token, &top.bytes),
                logprob: finite(top.logprob),
                bytes: top.bytes.clone(),
            })
            .collect(),
    };
    chat::Logprobs {
        content: logprobs.iter().map(entry).collect(),
        refusal: None,
    }
}

/// The log-probabilities of a prompt, if the answer shows them.
pub(super) fn whole_prompt(shape: &ResponseShape, prompt: &FoldedPrompt) -> Option<PromptLogprobs> {
    shape.prompt_logprobs.then(|| of_prompt(&prompt.logprobs))
}

/// The log-probabilities of a prompt in vLLM's format: the prompt's own token and the most likely ones at each
/// position.
fn of_prompt(logprobs: &[TokenLogprob]) -> PromptLogprobs {
    let candidate = |bytes: &[u8], logprob: f32, rank: u32| Candidate {
        logprob: finite(logprob),
        rank,
        decoded_token: String::from_utf8_lossy(bytes).into_owned(),
    };
    let entry = |entry: &TokenLogprob| {
        let own = candidate(&entry.bytes, entry.logprob?, entry.rank.unwrap_or(1));
        let others = (1..)
            .zip(&entry.top)
            .filter(|(_, top)| top.token != entry.token);
        let others =
            others.map(|(rank, top)| (top.token, candidate(&top.bytes, top.logprob, rank)));
        Some(Candidates(
            [(entry.token, own)].into_iter().chain(others).collect(),
        ))
    };
    logprobs.iter().map(entry).collect()
}

/// The log-probabilities of a plain completion. `offset` is where the tokens begin, and is moved to where they end.
pub(crate) fn legacy(
    logprobs: &[TokenLogprob],
    spelling: Spelling,
    offset: &mut Offset,
) -> completion::Logprobs {
    let mut lists = completion::Logprobs::default();
    for entry in logprobs {
        lists
            .tokens
            .push(spell_legacy(entry.token, &entry.bytes, spelling));
        lists.token_logprobs.push(entry.logprob.map(finite));
        lists.top_logprobs.push(top_legacy(entry, spelling));
        lists.text_offset.push(offset.pass(&entry.bytes));
    }
    lists
}

/// The most likely tokens, and the token itself if it isn't one of them.
fn top_legacy(entry: &TokenLogprob, spelling: Spelling) -> Option<completion::TopLogprobs> {
    let own = entry.logprob?;
    let mut spellings = HashSet::new();
    let mut top = Vec::with_capacity(entry.top.len() + 1);
    let others = entry
        .top
        .iter()
        .map(|top| (top.token, &top.bytes, top.logprob));
    let own = (!entry.top.iter().any(|top| top.token == entry.token)).then_some((
        entry.token,
        &entry.bytes,
        own,
    ));
    // Different tokens may have the same text. An object's key stands for the likelier one.
    for (token, bytes, logprob) in others.chain(own) {
        let token = spell_legacy(token, bytes, spelling);
        if spellings.insert(token.clone()) {
            top.push((token, finite(logprob)));
        }
    }
    Some(completion::TopLogprobs(top))
}

fn spell_legacy(token: Token, bytes: &[u8], spelling: Spelling) -> String {
    match (spelling, std::str::from_utf8(bytes)) {
        (Spelling::Ids, _) => token_id(token),
        (Spelling::Text, Ok(text)) => text.to_owned(),
        (Spelling::Text, Err(_)) => escaped(bytes),
    }
}

fn token_id(token: Token) -> String {
    format!("token_id:{token}")
}

/// The name of a token that is part of a character, in OpenAI's form: `bytes:\xe2\x80`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = "bytes:".to_owned();
    for &byte in bytes {
        match byte {
            b' '..=b'~' if byte != b'\\' => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes any text"),
        }
    }
    text
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LOGPROB_MIN)
}

/// A position in a text, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offset(usize);

impl Offset {
    pub(crate) fn at(characters: usize) -> Self {
        Offset(characters)
    }

    /// Moves past a token and returns where the token begins. A token that begins inside a character begins where that
    /// character does.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> usize {
        let is_inside = |byte: &u8| byte & 0xC0 == 0x80;
        let begin = match bytes.first() {
            Some(byte) if is_inside(byte) => self.0.saturating_sub(1),
            _ => self.0,
        };
        self.0 += bytes.iter().filter(|byte| !is_inside(byte)).count();
        begin
    }
}

#[cfg(test)]
mod tests {
    use weir_engine::event::TopLogprob;

    use super::*;

    fn token(bytes: &[u8], logprob: Option<f32>, top: &[(Token, &[u8], f32)]) -> TokenLogprob {
        TokenLogprob {
            token: 7,
            bytes: bytes.to_vec(),
            logprob,
            rank: None,
            top: top
                .iter()
                .map(|&(token, bytes, logprob)| TopLogprob {
                    token,
                    bytes: bytes.to_vec(),
                    logprob,
                })
                .collect(),
        }
    }

    #[test]
    fn offsets_count_characters() {
        let check = |tokens: &[&[u8]], expected: &[usize]| {
            let mut offset = Offset::at(10);
            let offsets: Vec<_> = tokens.iter().map(|bytes| offset.pass(bytes)).collect();
            assert_eq!(offsets, expected, "{tokens:?}");
        };
        check(&[b"ab", b"", b"c"], &[10, 12, 12]);
        check(&["ü".as_bytes(), b"x"], &[10, 11]);
        // A character of four bytes in three tokens, the last of which also contains the next letter.
        check(&[b"a\xf0", b"\x9f\x99", b"\x82b", b"c"], &[10, 11, 11, 13]);
    }

    #[test]
    fn parts_of_characters_are_escaped() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(spell_legacy(7, bytes, Spelling::Text), expected);
            assert_eq!(spell_legacy(7, bytes, Spelling::Ids), "token_id:7");
        };
        check("€".as_bytes(), "€");
        check(b"\xe2\x80", "bytes:\\xe2\\x80");
        check(b" a\\\xe2", "bytes: a\\x5c\\xe2");
    }

    #[test]
    fn the_token_itself_is_always_among_the_top() {
        let check = |entry: &TokenLogprob, expected: &[(&str, f32)]| {
            let expected = expected
                .iter()
                .map(|&(token, logprob)| (token.to_owned(), logprob));
            assert_eq!(
                top_legacy(entry, Spelling::Text).unwrap().0,
                expected.collect::<Vec<_>>()
            );
        };
        check(&token(b"a", Some(-1.0), &[]), &[("a", -1.0)]);
        check(
            &token(b"a", Some(-1.0), &[(7, b"a", -1.0), (8, b"b", -2.0)]),
            &[("a", -1.0), ("b", -2.0)],
        );
        check(
            &token(b"a", Some(-3.0), &[(8, b"b", -2.0)]),
            &[("b", -2.0), ("a", -3.0)],
        );
        // Two tokens with the same text: the likelier one is shown.
        check(&token(b"a", Some(-3.0), &[(8, b"a", -2.0)]), &[("a", -2.0)]);
        check(
            &token(b"a", Some(f32::NEG_INFINITY), &[]),
            &[("a", LOGPROB_MIN)],
        );
        assert_eq!(top_legacy(&token(b"a", None, &[]), Spelling::Text), None);
    }
}

//! The simulated model's vocabulary: two special tokens, all bytes, and a few words. Characters
//! beyond ASCII take a token for each of their bytes.

use std::sync::LazyLock;

use weir_engine::Token;

use crate::model::{Bos, Encoded, Tokenizer};
use crate::specials::{Fragment, Names, Special, SpecialKind, Specials};

pub(super) const BOS: Token = 0;
/// The EOS token, which ends a generation.
pub const END: Token = 1;
const BYTES: Token = 2;
const WORDS: Token = BYTES + 256;

/// The most bytes of a text that are tokenized; the rest is dropped, as if it took too long.
const COUNTED_BYTES: usize = 1 << 20;

static SPECIALS: LazyLock<Specials> = LazyLock::new(|| {
    let control = |(name, token): (&str, Token)| Special {
        token,
        name: name.to_owned(),
        kind: SpecialKind::Control,
        strips_left: false,
        strips_right: false,
    };
    Specials::new([("<|bos|>", BOS), ("<|end|>", END)].map(control))
});

/// The words that the model says, besides [`CHARACTERS`].
const VOICE: [&str; 24] = [
    " the", " a", " river", " stone", " weir", " water", " over", " under", " runs", " falls",
    " slow", " deep", " and", " of", " to", " in", ".", ",", "\n", " light", " fish", " mill",
    " wheel", " old",
];

/// Characters that the model says, one byte a token. Their first bytes differ, so a byte tells which one it is.
const CHARACTERS: [&str; 3] = ["ü", "語", "🙂"];

#[derive(Debug, Clone, Copy)]
pub struct SimTokenizer;

impl SimTokenizer {
    pub(super) const VOCABULARY: usize = WORDS as usize + VOICE.len();

    /// The tokens that may come when no character is incomplete.
    pub(super) fn openings() -> impl Iterator<Item = Token> {
        let words = (WORDS..).take(VOICE.len());
        words.chain(
            CHARACTERS
                .iter()
                .map(|character| byte(character.as_bytes()[0])),
        )
    }
}

impl Tokenizer for SimTokenizer {
    fn vocabulary(&self) -> u32 {
        u32::try_from(Self::VOCABULARY).expect("a small vocabulary")
    }

    fn specials(&self) -> &Specials {
        &SPECIALS
    }

    fn encode(&self, text: &str, names: Names<'_>, bos: Bos) -> Encoded {
        let counted = &text[..text.floor_char_boundary(COUNTED_BYTES)];
        let mut tokens = match bos {
            Bos::Add => vec![BOS],
            Bos::Omit => vec![],
        };
        for fragment in SPECIALS.fragments(counted, names) {
            match fragment {
                Fragment::Special(token) => tokens.push(token),
                Fragment::Text(range) | Fragment::Rest(range) => {
                    push_words(&counted[range], &mut tokens);
                }
            }
        }
        Encoded {
            tokens,
            complete: counted.len() == text.len(),
        }
    }

    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>) {
        if let Some(word) = token.checked_sub(WORDS) {
            bytes.extend_from_slice(VOICE[word as usize].as_bytes());
        } else if let Some(byte) = token.checked_sub(BYTES) {
            bytes.push(u8::try_from(byte).expect("there are 256 of them"));
        }
    }

    fn is_end(&self, token: Token) -> bool {
        token == END
    }
}

fn push_words(text: &str, tokens: &mut Vec<Token>) {
    let mut rest = text;
    while !rest.is_empty() {
        let words = VOICE.iter().copied().zip(WORDS..);
        let known = words.filter(|(word, _)| rest.starts_with(word));
        let length = match known.max_by_key(|(word, _)| word.len()) {
            Some((word, token)) => {
                tokens.push(token);
                word.len()
            }
            None => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                tokens.extend(rest.as_bytes()[..length].iter().map(|&b| byte(b)));
                length
            }
        };
        rest = &rest[length..];
    }
}

fn byte(byte: u8) -> Token {
    BYTES + Token::from(byte)
}

/// An incomplete character: some of its bytes have yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partial {
    character: usize,
    bytes: usize,
}

impl Partial {
    pub(super) fn after(before: Option<Partial>, token: Token) -> Option<Partial> {
        let begun = || {
            let character = CHARACTERS
                .iter()
                .position(|character| byte(character.as_bytes()[0]) == token)?;
            Some(Partial {
                character,
                bytes: 1,
            })
        };
        match before {
            Some(partial) if partial.next() == token => {
                let bytes = partial.bytes + 1;
                (bytes < CHARACTERS[partial.character].len())
                    .then_some(Partial { bytes, ..partial })
            }
            Some(_) | None => begun(),
        }
    }

    /// The only token that may come now.
    pub(super) fn next(self) -> Token {
        byte(CHARACTERS[self.character].as_bytes()[self.bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_text_again() {
        let check = |text: &str, tokens: usize| {
            let all = SimTokenizer.tokenize(text, Bos::Omit);
            let mut bytes = Vec::new();
            all.iter()
                .for_each(|&token| SimTokenizer.token_bytes(token, &mut bytes));
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            assert_eq!(all.len(), tokens, "{text}");
        };
        check("", 0);
        check("hi", 2);
        check(" the water", 2);
        check(" theü語🙂", 1 + 2 + 3 + 4);
        assert_eq!(
            SimTokenizer.tokenize("<|end|>.", Bos::Add),
            [BOS, END, WORDS + 16]
        );
    }
}

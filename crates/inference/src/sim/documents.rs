//! Random texts that a constraint allows.

use weir_engine::Token;

use crate::constraint::{Constraint, Next};
use crate::model::Tokenizer;
use crate::sim::{END, PromptMasks, SimTokenizer};

/// A random text that a constraint of [`SimTokenizer`]'s tokens allows. `None` if it gets longer than `bytes_max`; an
/// error says why if the constraint allows no next token.
pub fn random_text(
    constraint: &Constraint,
    seed: u64,
    bytes_max: usize,
) -> Result<Option<String>, String> {
    let mut random = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 16).unwrap_or(0) % below
    };
    let mut walk = constraint.begin();
    let mut bytes = Vec::new();
    while bytes.len() < bytes_max {
        let allowed: Vec<Token> = match walk.ahead() {
            Next::End => break,
            Next::Allowed(mask) => (0..SimTokenizer.vocabulary())
                .filter(|&token| is_set(mask, token))
                .collect(),
            other => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Err(format!("{other:?} after {text}"));
            }
        };
        let is_late = bytes.len() > bytes_max / 4;
        let ends =
            |token: &Token| *token == END || matches!(byte(*token), Some(b'"' | b'}' | b']'));
        let plain = |token: &Token| byte(*token).is_some_and(|byte| byte.is_ascii_graphic());
        let kind = next(8);
        // Mostly printable bytes, and towards the end tokens that close a value or end the text.
        let wanted: Vec<Token> = match kind {
            0 => allowed.clone(),
            1..4 => allowed.iter().copied().filter(ends).collect(),
            _ if is_late => allowed.iter().copied().filter(ends).collect(),
            _ => allowed.iter().copied().filter(plain).collect(),
        };
        let choices = if wanted.is_empty() { &allowed } else { &wanted };
        let token = choices[next(choices.len())];
        if token == END {
            break;
        }
        SimTokenizer.token_bytes(token, &mut bytes);
        walk.advance(token, &mut PromptMasks);
    }
    if bytes.len() >= bytes_max {
        return Ok(None);
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| "bytes that are no text".to_owned())
}

fn is_set(mask: &[u32], token: Token) -> bool {
    mask[token as usize / 32] >> (token % 32) & 1 == 1
}

/// The byte of a token that has just one.
fn byte(token: Token) -> Option<u8> {
    let mut bytes = Vec::new();
    SimTokenizer.token_bytes(token, &mut bytes);
    match *bytes {
        [byte] => Some(byte),
        _ => None,
    }
}

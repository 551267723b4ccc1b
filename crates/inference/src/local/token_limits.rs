//! Limits on a choice's next token that hold whatever its probability.

use weir_engine::Token;

use crate::prepared::PreparedRequest;
use crate::prepared::TokenLimits;

const WORD: usize = u32::BITS as usize;

/// A buffer for the mask of tokens that several limits allow.
#[derive(Debug, Default)]
pub(crate) struct AllowedTokens(Vec<u32>);

impl AllowedTokens {
    /// The mask of the tokens that both `always` (the request) and `guided` (the format) allow; only the `forced` one
    /// if both allow it. `None` allows every token.
    pub(crate) fn of<'a>(
        &'a mut self,
        always: Option<&'a [u32]>,
        guided: Option<&'a [u32]>,
        forced: Option<Token>,
    ) -> Option<&'a [u32]> {
        let all = match (always, guided) {
            (None, limit) | (limit, None) => limit,
            (Some(always), Some(guided)) => {
                self.0.clear();
                self.0.extend(always.iter().zip(guided).map(|(a, b)| a & b));
                None
            }
        };
        let both = always.is_some() && guided.is_some();
        let contains = |mask: &[u32], token: Token| {
            let word = mask.get(token as usize / WORD).copied().unwrap_or(0);
            word >> (token as usize % WORD) & 1 == 1
        };
        let limits = [always, guided];
        let forced = forced.filter(|&token| {
            let mut limits = limits.into_iter().flatten();
            limits.all(|mask| contains(mask, token))
        });
        match forced {
            Some(token) => {
                self.0.clear();
                self.0.resize(token as usize / WORD + 1, 0);
                self.0[token as usize / WORD] = 1 << (token as usize % WORD);
                Some(&self.0)
            }
            None if both => Some(&self.0),
            None => all,
        }
    }
}

/// A mask with the bits of these tokens set.
pub(crate) fn mask(tokens: &[Token]) -> Vec<u32> {
    let words = tokens
        .iter()
        .max()
        .map_or(0, |&last| last as usize / WORD + 1);
    let mut mask = vec![0; words];
    for &token in tokens {
        mask[token as usize / WORD] |= 1 << (token as usize % WORD);
    }
    mask
}

/// Tokens that a choice may not have next, given the tokens that it has generated.
#[derive(Debug, Default)]
pub(crate) struct BannedTokens {
    /// The choice's last tokens: enough for the longest bad word.
    said: Vec<Token>,
    now: Vec<Token>,
}

impl BannedTokens {
    /// The tokens that are banned after `generated` tokens.
    pub(crate) fn now(&mut self, prepared: &PreparedRequest, generated: u32) -> &[Token] {
        let TokenLimits {
            bad_words, ends, ..
        } = &prepared.limits;
        self.now.clear();
        if generated < prepared.request.stop.min_tokens {
            self.now.extend_from_slice(ends);
        }
        for word in bad_words.iter() {
            if let Some((last, before)) = word.split_last()
                && self.said.ends_with(before)
            {
                self.now.push(*last);
            }
        }
        &self.now
    }

    pub(crate) fn push(&mut self, token: Token, bad_words: &[Box<[Token]>]) {
        let longest = bad_words
            .iter()
            .map(|word| word.len() - 1)
            .max()
            .unwrap_or(0);
        if longest == 0 {
            return;
        }
        self.said.push(token);
        // Not each time, since the tokens that stay are moved.
        if self.said.len() > 2 * longest {
            self.said.drain(..self.said.len() - longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_all_limits_allow() {
        let check = |always: Option<&[Token]>,
                     guided: Option<&[Token]>,
                     forced,
                     expected: Option<&[Token]>| {
            let (always, guided) = (always.map(mask), guided.map(mask));
            let mut allowed = AllowedTokens::default();
            let found = allowed.of(always.as_deref(), guided.as_deref(), forced);
            let has = |mask: &[u32], token: Token| {
                mask.get(token as usize / WORD)
                    .is_some_and(|word| word >> (token as usize % WORD) & 1 == 1)
            };
            let found: Option<Vec<Token>> =
                found.map(|mask| (0..200).filter(|&token| has(mask, token)).collect());
            assert_eq!(found.as_deref(), expected);
        };
        check(None, None, None, None);
        check(Some(&[3, 70]), None, None, Some(&[3, 70]));
        check(None, Some(&[3, 70]), None, Some(&[3, 70]));
        check(Some(&[3, 70, 150]), Some(&[70, 71]), None, Some(&[70]));
        check(None, None, Some(100), Some(&[100]));
        check(Some(&[3, 100]), Some(&[100, 101]), Some(100), Some(&[100]));
        check(Some(&[3, 101]), Some(&[100, 101]), Some(100), Some(&[101]));
        check(Some(&[3]), None, Some(100), Some(&[3]));
    }
}

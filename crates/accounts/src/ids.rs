//! The ids of accounts and keys, and random texts.

use std::fmt;
use std::sync::Arc;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for AccountId {
    fn from(id: String) -> Self {
        AccountId(id.into())
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The public part of a key: its name in lists, logs and usage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for KeyId {
    fn from(id: String) -> Self {
        KeyId(id.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `len` characters of base62 from the operating system's random numbers.
pub(crate) fn random(len: usize) -> String {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).expect("the operating system has random numbers");
        // Six bits make a character; the two values beyond the alphabet are thrown away.
        let characters = bytes
            .iter()
            .filter_map(|byte| BASE62.get(usize::from(byte & 63)));
        let missing = len.saturating_sub(text.len());
        text.extend(characters.take(missing).map(|&byte| char::from(byte)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_texts_use_the_whole_alphabet() {
        let text = random(10_000);
        assert_eq!(text.len(), 10_000);
        for letter in BASE62 {
            let seen = text.bytes().filter(|byte| byte == letter).count();
            assert!(
                (60..300).contains(&seen),
                "{} comes {seen} times",
                char::from(*letter)
            );
        }
        assert_ne!(random(43), random(43));
    }
}

//! The head of a GGUF file: what it says of its model and its tensors, read without trust.
//!
//! llama.cpp reads the same head, and ends the process where a number in it isn't one that it expects. So a file is
//! read here first: bounded in memory, with every length held against the file's size, and with an error that says
//! what is wrong. [`Gguf::check`] looks for the values that llama.cpp asserts for every architecture; those of one
//! architecture only are found by loading the file in another process ([`crate::trial`]).

mod check;
mod format;
mod numbers;
mod parts;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

use crate::load::LoadError;

pub use self::format::Format;
pub use self::numbers::{Finding, check_numbers};
pub use self::parts::parts;

/// The head of a file: all before its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    pub version: u32,
    /// Size of the file.
    pub bytes: u64,
    /// Where the first tensor begins.
    pub data_offset: u64,
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<Tensor>,
    /// SHA-256 of all bytes before the first tensor, as hexadecimal digits.
    pub head_sha256: String,
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    /// Bytes that aren't UTF-8 are replaced.
    Text(String),
    /// A text that is too long to be kept: its bytes.
    LongText(u64),
    Array(Array),
}

/// A list of the metadata. Vocabularies have hundreds of thousands of entries, so only short lists of numbers are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub length: u64,
    pub numbers: Option<Vec<f64>>,
}

/// A tensor as the head describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub format: Format,
    /// Numbers in a row, rows, and how many such matrices.
    pub shape: [u64; 3],
    /// Where its numbers are, from the beginning of the file.
    pub offset: u64,
    /// Bytes that its numbers take.
    pub bytes: u64,
}

impl Gguf {
    /// Reads the head of a file; the weights aren't looked at, but they have to be there.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        read::read(path).map_err(|failure| failure.at(path))
    }

    /// Says which value llama.cpp would end the process for, whatever the architecture.
    pub fn check(&self) -> Result<(), String> {
        check::check(self)
    }

    /// Such as `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that isn't negative.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.number()
    }

    /// A number of the model's architecture: `block_count` is `llama.block_count`. The largest one where each layer has its own.
    pub fn of_model(&self, key: &str) -> Option<u64> {
        let numbers = self.of_layers(key)?;
        numbers.into_iter().max()
    }

    /// The same for each layer, or one number for all.
    pub fn of_layers(&self, key: &str) -> Option<Vec<u64>> {
        let value = self.metadata.get(&self.model_key(key))?;
        match value {
            Value::Array(Array {
                numbers: Some(numbers),
                ..
            }) => Some(numbers.iter().map(|&number| number as u64).collect()),
            value => Some(vec![value.number()?]),
        }
    }

    /// Entries of a list.
    pub fn length(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key)? {
            Value::Array(array) => Some(array.length),
            Value::Unsigned(_)
            | Value::Signed(_)
            | Value::Float(_)
            | Value::Flag(_)
            | Value::Text(_)
            | Value::LongText(_) => None,
        }
    }

    fn model_key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture().unwrap_or_default())
    }

    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }

    /// Numbers of all tensors.
    pub fn parameters(&self) -> u64 {
        let elements = self.tensors.iter().map(Tensor::elements);
        elements.fold(0, u64::saturating_add)
    }
}

impl Value {
    fn number(&self) -> Option<u64> {
        match *self {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            Value::Float(_)
            | Value::Flag(_)
            | Value::Text(_)
            | Value::LongText(_)
            | Value::Array(_) => None,
        }
    }
}

impl Tensor {
    pub fn elements(&self) -> u64 {
        self.shape.iter().copied().fold(1, u64::saturating_mul)
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! The header of a GGUF file: its metadata and its list of tensors, read without trusting the file.
//!
//! llama.cpp reads the same header, and ends the process if a number in it is out of range. So a file is read here first:
//! with bounded memory, with every length compared with the file's size, and with an error that says what is wrong.
//! [`Gguf::check`] looks for values that llama.cpp asserts for every architecture; assertions of single architectures
//! are found by loading the file in another process ([`crate::trial`]).

mod check;
mod format;
mod numbers;
mod parts;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

use crate::options::LoadError;

pub use self::format::Format;
pub use self::numbers::{Finding, check_numbers};
pub use self::parts::parts;

/// The header of a file: everything before its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    pub version: u32,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Offset of the first tensor in the file, in bytes.
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
    /// A text up to 1 MiB; bytes that aren't UTF-8 are replaced.
    Text(String),
    /// A text that is too long to be kept, by its length in bytes.
    LongText(u64),
    Array(Array),
}

/// A list in the metadata. Vocabularies have hundreds of thousands of entries, so only short lists of numbers are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub length: u64,
    pub numbers: Option<Vec<f64>>,
}

/// A tensor as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub format: Format,
    /// Numbers per row, rows per matrix, matrices.
    pub shape: [u64; 3],
    /// Offset of the tensor's numbers in the file, in bytes.
    pub offset: u64,
    /// Bytes of the tensor's numbers.
    pub bytes: u64,
}

impl Gguf {
    /// Reads the header of a file. The weights aren't read, but it is an error if the file is too short for them.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        read::read(path).map_err(|failure| failure.at(path))
    }

    /// Checks the values that llama.cpp asserts for every architecture. The error names the first bad value.
    pub fn check(&self) -> Result<(), String> {
        check::check(self)
    }

    /// The name of the architecture, such as `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of the key, if that is a whole number and not negative.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.number()
    }

    /// A number under the architecture's name (`block_count` reads `llama.block_count`); where each layer has its own, the largest.
    pub fn of_model(&self, key: &str) -> Option<u64> {
        let numbers = self.of_layers(key)?;
        numbers.into_iter().max()
    }

    /// Like [`of_model`](Self::of_model), with the numbers of all layers; one number if the file has one for all.
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

    /// The number of entries of a list.
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

    /// The number of parameters: the numbers of all tensors.
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

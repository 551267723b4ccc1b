//! A GGUF file in parts that a test can exchange and write again. The reader and the writer share no code with the crate's.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test file uses its own part"
)]

use std::fs;
use std::path::Path;

/// The parts of a file in their order. Lengths, counts and offsets are written as they follow from the parts, unless a test sets others.
#[derive(Debug, Clone)]
pub struct Edit {
    pub keys: Vec<Key>,
    pub tensors: Vec<Info>,
    pub weights: Vec<u8>,
    pub alignment: usize,
    /// Written in place of the real numbers of keys and of tensors.
    pub counts: Option<(u64, u64)>,
    pub version: u32,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub name: Vec<u8>,
    pub kind: u32,
    /// The bytes of the value in the file.
    pub value: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Info {
    pub name: Vec<u8>,
    pub sizes: Vec<u64>,
    pub format: u32,
    pub offset: u64,
}

pub const U32: u32 = 4;
pub const F32: u32 = 6;
pub const TEXT: u32 = 8;
pub const LIST: u32 = 9;

impl Edit {
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("the file is there");
        let mut from = Cursor(&bytes, 4);
        let version = from.u32();
        let (tensors, keys) = (from.u64(), from.u64());
        let keys: Vec<Key> = (0..keys).map(|_| from.key()).collect();
        let tensors = (0..tensors).map(|_| from.info()).collect();
        let alignment = 32;
        let data = from.1.next_multiple_of(alignment);
        Edit {
            keys,
            tensors,
            weights: bytes[data..].to_vec(),
            alignment,
            counts: None,
            version,
        }
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).expect("the disk has room");
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        let real = (self.keys.len() as u64, self.tensors.len() as u64);
        let (keys, tensors) = self.counts.unwrap_or(real);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        for key in &self.keys {
            bytes.extend(text(&key.name));
            bytes.extend(key.kind.to_le_bytes());
            bytes.extend(&key.value);
        }
        for info in &self.tensors {
            bytes.extend(text(&info.name));
            bytes.extend((info.sizes.len() as u32).to_le_bytes());
            info.sizes
                .iter()
                .for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(info.format.to_le_bytes());
            bytes.extend(info.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.weights);
        bytes
    }

    pub fn key(&mut self, name: &str) -> &mut Key {
        let found = self.keys.iter_mut().find(|key| key.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Replaces the key's value, or adds the key.
    pub fn set(&mut self, name: &str, kind: u32, value: Vec<u8>) {
        let key = Key {
            name: name.as_bytes().to_vec(),
            kind,
            value,
        };
        match self.keys.iter_mut().find(|old| old.name == key.name) {
            Some(old) => *old = key,
            None => self.keys.push(key),
        }
    }

    pub fn set_u32(&mut self, name: &str, value: u32) {
        self.set(name, U32, value.to_le_bytes().to_vec());
    }
}

/// A text in GGUF's encoding: its length, then its bytes.
pub fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

struct Cursor<'a>(&'a [u8], usize);

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.0[self.1..self.1 + count].to_vec();
        self.1 += count;
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight"))
    }

    fn text(&mut self) -> Vec<u8> {
        let length = self.u64() as usize;
        self.take(length)
    }

    fn key(&mut self) -> Key {
        let (name, kind) = (self.text(), self.u32());
        let begin = self.1;
        self.skip(kind);
        let value = self.0[begin..self.1].to_vec();
        Key { name, kind, value }
    }

    fn skip(&mut self, kind: u32) {
        match kind {
            TEXT => drop(self.text()),
            LIST => {
                let (kind, length) = (self.u32(), self.u64());
                (0..length).for_each(|_| self.skip(kind));
            }
            0 | 1 | 7 => self.1 += 1,
            2 | 3 => self.1 += 2,
            4..=6 => self.1 += 4,
            _ => self.1 += 8,
        }
    }

    fn info(&mut self) -> Info {
        let (name, dimensions) = (self.text(), self.u32());
        Info {
            name,
            sizes: (0..dimensions).map(|_| self.u64()).collect(),
            format: self.u32(),
            offset: self.u64(),
        }
    }
}

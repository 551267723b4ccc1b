//! Reads a header: never beyond the file's end, and with bounded memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Array, Format, Gguf, Tensor, Value};
use crate::checksum::hex;
use crate::options::LoadError;

const MAGIC: &[u8] = b"GGUF";
/// Versions of the GGUF format that llama.cpp reads.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// The most keys in the metadata; files have 30 to 100.
const KEYS_MAX: u64 = 65_536;
/// The longest name of a key, from the GGUF specification.
const KEY_BYTES_MAX: u64 = 65_535;
/// The most tensors. Large models have some thousand, or some ten thousand if each expert has its own.
const TENSORS_MAX: u64 = 1 << 20;
/// llama.cpp's limit of a tensor's name, with the NUL.
const TENSOR_NAME_BYTES: u64 = 64;
const DIMENSIONS_MAX: u32 = 4;
/// The longest text that is kept, in bytes: longer than any chat template.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// The longest list of numbers that is kept. Lists with a number per layer have at most 512.
const NUMBERS_MAX: u64 = 1_024;
/// The most bytes before the weights. Vocabularies take some tens of MiB.
const HEAD_BYTES_MAX: u64 = 1 << 30;
const ALIGNMENT: u64 = 32;

/// Why a header couldn't be read.
#[derive(Debug)]
pub(super) enum Failure {
    Unreadable(io::Error),
    NotGguf,
    Broken(String),
}

impl Failure {
    pub(super) fn at(self, path: &Path) -> LoadError {
        let path = path.to_owned();
        match self {
            Failure::Unreadable(error) => LoadError::Unreadable { path, error },
            Failure::NotGguf => LoadError::NotGguf { path },
            Failure::Broken(reason) => LoadError::Broken { path, reason },
        }
    }
}

type Outcome<T> = Result<T, Failure>;

fn broken<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Failure::Broken(reason.into()))
}

pub(super) fn read(path: &Path) -> Outcome<Gguf> {
    let file = open(path).map_err(Failure::Unreadable)?;
    let bytes = file.metadata().map_err(Failure::Unreadable)?.len();
    let mut reader = Reader {
        from: BufReader::with_capacity(1 << 16, file),
        hash: Sha256::new(),
        at: 0,
        end: bytes,
    };
    if bytes < MAGIC.len() as u64 || reader.bytes(MAGIC.len() as u64)? != MAGIC {
        return Err(Failure::NotGguf);
    }
    let version = reader.u32()?;
    if !VERSIONS.contains(&version) {
        return broken(format!("it is of version {version} of GGUF"));
    }
    let tensors = reader.count("tensors", TENSORS_MAX)?;
    let keys = reader.count("keys", KEYS_MAX)?;
    let metadata = metadata(&mut reader, keys)?;
    let alignment = alignment(&metadata)?;
    let mut tensors: Vec<Tensor> = infos(&mut reader, tensors)?;
    reader.pad(alignment, !tensors.is_empty())?;
    let data_offset = reader.at;
    place(&mut tensors, data_offset, alignment, bytes)?;
    Ok(Gguf {
        version,
        bytes,
        data_offset,
        metadata,
        tensors,
        head_sha256: hex(&reader.hash.finalize()),
    })
}

/// Opens a regular file. Anything else is refused first, since opening a pipe would block until another process writes to it.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        let what = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    File::open(path)
}

fn metadata(reader: &mut Reader, keys: u64) -> Outcome<BTreeMap<String, Value>> {
    let mut metadata = BTreeMap::new();
    for _ in 0..keys {
        let key = reader.name("a key", KEY_BYTES_MAX)?;
        let kind = reader.u32()?;
        let value = reader.value(&key, kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return broken(format!("the key {key} is there twice"));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Outcome<u64> {
    match metadata.get("general.alignment") {
        None => Ok(ALIGNMENT),
        Some(&Value::Unsigned(alignment)) if alignment.is_power_of_two() => Ok(alignment),
        Some(other) => broken(format!("general.alignment is {other:?}")),
    }
}

/// Reads the descriptions of the tensors. Their offsets are still relative to the beginning of the weights.
fn infos(reader: &mut Reader, count: u64) -> Outcome<Vec<Tensor>> {
    let mut tensors = Vec::new();
    let mut names = std::collections::HashSet::new();
    for _ in 0..count {
        let name = reader.name("a tensor", TENSOR_NAME_BYTES - 1)?;
        if !names.insert(name.clone()) {
            return broken(format!("the tensor {name} is there twice"));
        }
        let dimensions = reader.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return broken(format!("the tensor {name} has {dimensions} dimensions"));
        }
        let mut sizes = [1u64; DIMENSIONS_MAX as usize];
        for size in sizes.iter_mut().take(dimensions as usize) {
            *size = reader.u64()?;
        }
        let number = reader.u32()?;
        let Some(format) = Format::new(number) else {
            return broken(format!(
                "the tensor {name} is in the unknown format {number}"
            ));
        };
        let offset = reader.u64()?;
        tensors.push(tensor(name, format, sizes, offset)?);
    }
    Ok(tensors)
}

fn tensor(name: String, format: Format, sizes: [u64; 4], offset: u64) -> Outcome<Tensor> {
    let elements = sizes
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size));
    let countable = elements.is_some_and(|elements| i64::try_from(elements).is_ok());
    let [row, rows, matrices, more] = sizes;
    let shape = [row, rows, matrices.saturating_mul(more)];
    let bytes = format.bytes(shape);
    let (true, Some(bytes)) = (countable, bytes) else {
        return broken(format!(
            "the tensor {name} of {sizes:?} numbers can't be counted"
        ));
    };
    if !row.is_multiple_of(format.block_numbers()) {
        return broken(format!(
            "the tensor {name} has rows of {row} numbers in {format}, whose blocks have {}",
            format.block_numbers()
        ));
    }
    Ok(Tensor {
        name,
        format,
        shape,
        offset,
        bytes,
    })
}

/// Checks that tensors follow each other without gaps and end within the file, and makes their offsets absolute.
fn place(tensors: &mut [Tensor], data_offset: u64, alignment: u64, end: u64) -> Outcome<()> {
    let mut next = 0u64;
    for tensor in tensors {
        let name = &tensor.name;
        if tensor.offset != next {
            return broken(format!(
                "the tensor {name} is said to be at {} of the weights, and the one before it ends at {next}",
                tensor.offset
            ));
        }
        let padded = tensor.bytes.checked_next_multiple_of(alignment);
        let Some(behind) = padded.and_then(|padded| next.checked_add(padded)) else {
            return broken(format!("the tensor {name} can't be counted"));
        };
        tensor.offset = data_offset.saturating_add(next);
        if tensor.offset.saturating_add(tensor.bytes) > end {
            return broken(format!(
                "the tensor {name} ends at byte {}, and the file has {end}",
                tensor.offset.saturating_add(tensor.bytes)
            ));
        }
        next = behind;
    }
    Ok(())
}

struct Reader {
    from: BufReader<File>,
    hash: Sha256,
    at: u64,
    /// The file's length in bytes.
    end: u64,
}

impl Reader {
    /// The next `count` bytes. The caller has bounded `count`.
    fn bytes(&mut self, count: u64) -> Outcome<Vec<u8>> {
        self.claim(count)?;
        let mut bytes = vec![0; usize::try_from(count).expect("a bounded length")];
        self.from.read_exact(&mut bytes).map_err(cut)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Outcome<()> {
        self.claim(count)?;
        let mut left = count;
        while left > 0 {
            let buffer = self.from.fill_buf().map_err(cut)?;
            if buffer.is_empty() {
                return Err(cut(io::ErrorKind::UnexpectedEof.into()));
            }
            let part = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.hash.update(&buffer[..part]);
            self.from.consume(part);
            left -= part as u64;
        }
        Ok(())
    }

    fn claim(&mut self, count: u64) -> Outcome<()> {
        let next = self.at.checked_add(count);
        let Some(next) = next.filter(|&next| next <= self.end) else {
            return broken(format!(
                "it says that there are {count} bytes more at {}, and the file has {}",
                self.at, self.end
            ));
        };
        if next > HEAD_BYTES_MAX {
            return broken(format!("its head has more than {HEAD_BYTES_MAX} bytes"));
        }
        self.at = next;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(cut)?;
        self.hash.update(bytes);
        Ok(bytes)
    }

    fn u32(&mut self) -> Outcome<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Outcome<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn count(&mut self, what: &str, most: u64) -> Outcome<u64> {
        let count = self.u64()?;
        if count > most {
            return broken(format!("it says that it has {count} {what}"));
        }
        Ok(count)
    }

    /// A text of 1 to `most` bytes without a NUL.
    fn name(&mut self, what: &str, most: u64) -> Outcome<String> {
        let length = self.u64()?;
        if length == 0 || length > most {
            return broken(format!(
                "{what} at {} has a name of {length} bytes",
                self.at
            ));
        }
        let at = self.at;
        let bytes = self.bytes(length)?;
        if bytes.contains(&0) {
            return broken(format!("{what} at {at} has a name with a NUL"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self, key: &str, kind: u32) -> Outcome<Value> {
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            TEXT => {
                let length = self.u64()?;
                if length > TEXT_BYTES_MAX {
                    self.skip(length)?;
                    return Ok(Value::LongText(length));
                }
                let bytes = self.bytes(length)?;
                Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            ARRAY => {
                let kind = self.u32()?;
                let length = self.u64()?;
                self.list(key, kind, length).map(Value::Array)
            }
            _ => self.scalar(key, kind),
        }
    }

    fn list(&mut self, key: &str, kind: u32, length: u64) -> Outcome<Array> {
        const TEXT: u32 = 8;
        let mut array = Array {
            length,
            numbers: None,
        };
        if kind == TEXT {
            for _ in 0..length {
                let length = self.u64()?;
                self.skip(length)?;
            }
            return Ok(array);
        }
        let Some(size) = size(kind) else {
            return broken(format!(
                "the key {key} is a list of the unknown kind {kind}"
            ));
        };
        if length > NUMBERS_MAX {
            let Some(bytes) = length.checked_mul(size) else {
                return broken(format!("the key {key} is a list of {length} entries"));
            };
            self.skip(bytes)?;
            return Ok(array);
        }
        let numbers = (0..length).map(|_| {
            Ok(match self.scalar(key, kind)? {
                Value::Unsigned(number) => number as f64,
                Value::Signed(number) => number as f64,
                Value::Float(number) => number,
                Value::Flag(flag) => f64::from(u8::from(flag)),
                Value::Text(_) | Value::LongText(_) | Value::Array(_) => unreachable!("a scalar"),
            })
        });
        array.numbers = Some(numbers.collect::<Outcome<_>>()?);
        Ok(array)
    }

    fn scalar(&mut self, key: &str, kind: u32) -> Outcome<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Flag(self.array::<1>()? != [0]),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return broken(format!("the key {key} is of the unknown kind {kind}")),
        })
    }

    /// Skips the padding before the weights.
    fn pad(&mut self, alignment: u64, has_weights: bool) -> Outcome<()> {
        let padded = self.at.checked_next_multiple_of(alignment);
        match padded {
            Some(padded) if has_weights => self.skip(padded - self.at),
            None if has_weights => broken("its weights can't be aligned"),
            Some(_) | None => Ok(()),
        }
    }
}

/// Bytes of a scalar of this kind; `None` for an unknown kind.
fn size(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// An error of a read within the file's known length: the file has become shorter, or the disk failed.
fn cut(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::Broken("it has become shorter".to_owned()),
        _ => Failure::Unreadable(error),
    }
}

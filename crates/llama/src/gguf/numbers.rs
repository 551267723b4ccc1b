//! Checks whether a file's weights look like weights. Damage from a disk or a download is mostly a stretch of zeros, or random
//! bytes, among which some scale isn't a finite number. Only a checksum shows other damage.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use super::{Format, Gguf, Tensor};

/// Numbers that are checked at a time: whole blocks of every format.
const PART_NUMBERS: u64 = 1 << 18;
/// Intact matrices don't have this many zeros in a row. In the smallest formats they take a page.
const ZEROS_MIN: u64 = 4_096;

/// A finding about a tensor's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An infinite number or NaN, in the block that begins at this byte of the file.
    NotANumber { tensor: String, at: u64 },
    /// A run of zeros that begins in the block at this byte of the file.
    Zeros {
        tensor: String,
        at: u64,
        numbers: u64,
    },
    /// Rows of zeros in a table with a row per token, as models have for tokens that aren't used.
    UnusedRows { tensor: String, rows: u64 },
}

impl Finding {
    /// Whether the finding is most likely no damage.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Finding::UnusedRows { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::NotANumber { tensor, at } => {
                write!(
                    f,
                    "{tensor} has something that is not a finite number at byte {at}"
                )
            }
            Finding::Zeros {
                tensor,
                at,
                numbers,
            } => write!(f, "{tensor} has {numbers} zeros in a row from byte {at} on"),
            Finding::UnusedRows { tensor, rows } => {
                write!(
                    f,
                    "{tensor} has {rows} rows of zeros, as tables of tokens have for unused ones"
                )
            }
        }
    }
}

/// Reads all weights of a file. `go_on` is asked before each part; once it says no, the result is `None`.
pub fn check_numbers(
    path: &Path,
    head: &Gguf,
    mut go_on: impl FnMut() -> bool,
) -> io::Result<Option<Vec<Finding>>> {
    let file = File::open(path)?;
    let mut findings = Vec::new();
    for tensor in &head.tensors {
        let Some(to_float) = reader(tensor.format) else {
            continue;
        };
        let mut look = Look::new(tensor);
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        while look.seen < tensor.elements() {
            if !go_on() {
                return Ok(None);
            }
            let part = PART_NUMBERS.min(tensor.elements() - look.seen);
            let place = tensor.offset + tensor.format.bytes_of(look.seen);
            bytes.resize(
                usize::try_from(tensor.format.bytes_of(part)).expect("a part is small"),
                0,
            );
            file.read_exact_at(&mut bytes, place)?;
            numbers.resize(usize::try_from(part).expect("a part is small"), 0.0);
            to_float.read(&bytes, &mut numbers);
            look.at(&numbers);
        }
        findings.extend(look.end());
    }
    Ok(Some(findings))
}

/// How the blocks of a format become 32-bit floats.
enum ToFloat {
    Plain,
    Ggml(unsafe extern "C" fn(*const std::ffi::c_void, *mut f32, i64)),
}

/// `None` for formats that ggml can't convert, which no weights have.
fn reader(format: Format) -> Option<ToFloat> {
    if format == Format::F32 {
        return Some(ToFloat::Plain);
    }
    // SAFETY: a look-up in a table, of a number that is below its length.
    let traits = unsafe { sys::ggml_get_type_traits(format.ggml()) };
    // SAFETY: the table is static.
    let to_float = unsafe { (*traits).to_float };
    to_float.map(ToFloat::Ggml)
}

impl ToFloat {
    /// Converts blocks to numbers. `bytes` has exactly the blocks of `numbers`.
    fn read(&self, bytes: &[u8], numbers: &mut [f32]) {
        match self {
            ToFloat::Plain => {
                for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
                    *number = f32::from_le_bytes(bytes.try_into().expect("four"));
                }
            }
            ToFloat::Ggml(to_float) => {
                let count = i64::try_from(numbers.len()).expect("a part is small");
                // SAFETY: `to_float` reads the blocks of `count` numbers, which are all of `bytes`, and writes `count` numbers.
                unsafe { to_float(bytes.as_ptr().cast(), numbers.as_mut_ptr(), count) }
            }
        }
    }
}

/// The state of the check of one tensor.
struct Look<'a> {
    tensor: &'a Tensor,
    seen: u64,
    /// Index of the first number of the run of zeros that ends at `seen`.
    zeros_from: u64,
    unused: u64,
    findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn new(tensor: &'a Tensor) -> Self {
        Look {
            tensor,
            seen: 0,
            zeros_from: 0,
            unused: 0,
            findings: Vec::new(),
        }
    }

    fn at(&mut self, numbers: &[f32]) {
        for (index, &number) in (self.seen..).zip(numbers) {
            if number == 0.0 {
                continue;
            }
            self.end_zeros(index);
            self.zeros_from = index + 1;
            // One such number is enough: damage makes thousands.
            if !number.is_finite() && self.findings.is_empty() {
                self.findings.push(Finding::NotANumber {
                    tensor: self.tensor.name.clone(),
                    at: self.byte(index),
                });
            }
        }
        self.seen += numbers.len() as u64;
    }

    fn end_zeros(&mut self, end: u64) {
        let begin = self.zeros_from;
        if end - begin < ZEROS_MIN.min(self.tensor.shape[0]) || self.is_vector() {
            return;
        }
        let row = self.tensor.shape[0];
        if self.is_of_tokens() {
            let rows = (end / row).saturating_sub(begin.div_ceil(row));
            self.unused += rows;
            // Unused rows are whole rows; up to half a row of zeros beside them may be chance.
            let beside = (end - begin) - rows * row;
            if beside < row / 2 {
                return;
            }
        } else if end - begin < ZEROS_MIN {
            return;
        }
        self.findings.push(Finding::Zeros {
            tensor: self.tensor.name.clone(),
            at: self.byte(begin),
            numbers: end - begin,
        });
    }

    fn end(mut self) -> Vec<Finding> {
        self.end_zeros(self.seen);
        if self.unused > 0 {
            self.findings.push(Finding::UnusedRows {
                tensor: self.tensor.name.clone(),
                rows: self.unused,
            });
        }
        self.findings
    }

    /// Offset in the file of the block that contains the number.
    fn byte(&self, number: u64) -> u64 {
        self.tensor.offset + self.tensor.format.bytes_of(number)
    }

    /// Vectors aren't checked: biases are zeros in models that have none.
    fn is_vector(&self) -> bool {
        self.tensor.shape[1] * self.tensor.shape[2] == 1
    }

    fn is_of_tokens(&self) -> bool {
        let name = &self.tensor.name;
        name.contains("token_embd") || name.starts_with("output.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: [u64; 3], format: Format) -> Tensor {
        Tensor {
            name: name.to_owned(),
            format,
            shape,
            offset: 1_000,
            bytes: 0,
        }
    }

    /// Checks ones with these ranges replaced, fed in parts of 100 numbers.
    fn check(name: &str, changes: &[(std::ops::Range<usize>, f32)], expected: &[Finding]) {
        let tensor = tensor(name, [1_024, 64, 1], Format::F32);
        let mut numbers = vec![1.0; 65_536];
        for (range, number) in changes {
            numbers[range.clone()].fill(*number);
        }
        let mut look = Look::new(&tensor);
        numbers.chunks(100).for_each(|part| look.at(part));
        assert_eq!(look.end(), expected, "{name} {changes:?}");
    }

    #[test]
    fn zeros_and_what_is_no_number_are_found() {
        let zeros = |tensor: &str, at, numbers| Finding::Zeros {
            tensor: tensor.to_owned(),
            at,
            numbers,
        };
        let matrix = "blk.0.ffn_up.weight";
        check(matrix, &[], &[]);
        check(matrix, &[(0..4_095, 0.0)], &[]);
        check(matrix, &[(0..4_096, 0.0)], &[zeros(matrix, 1_000, 4_096)]);
        check(
            matrix,
            &[(60_000..65_536, 0.0)],
            &[zeros(matrix, 241_000, 5_536)],
        );
        check(
            matrix,
            &[(10..20, f32::NAN), (50..51, f32::INFINITY)],
            &[Finding::NotANumber {
                tensor: matrix.to_owned(),
                at: 1_040,
            }],
        );
        let tokens = "token_embd.weight";
        let unused = |rows| Finding::UnusedRows {
            tensor: tokens.to_owned(),
            rows,
        };
        check(
            tokens,
            &[(1_024..2_048, 0.0), (64_512..65_536, 0.0)],
            &[unused(2)],
        );
        check(tokens, &[(1_020..10_250, 0.0)], &[unused(9)]);
        check(
            tokens,
            &[(500..10_700, 0.0)],
            &[zeros(tokens, 3_000, 10_200), unused(9)],
        );
        assert!(unused(1).is_harmless() && !zeros(tokens, 0, 1).is_harmless());
    }

    #[test]
    fn vectors_may_be_zeros() {
        let tensor = tensor("blk.0.attn_q.bias", [8_192, 1, 1], Format::F32);
        let mut look = Look::new(&tensor);
        look.at(&[0.0; 8_192]);
        assert_eq!(look.end(), []);
    }
}

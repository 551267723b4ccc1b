//! Formats in which a tensor's numbers are stored.

use std::ffi::CStr;
use std::fmt;

use llama_cpp_sys_2 as sys;

/// A ggml type that this version of llama.cpp knows. Numbers are stored in blocks of a fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Format(sys::ggml_type);

impl Format {
    pub const F32: Format = Format(sys::GGML_TYPE_F32);
    pub const Q4_1: Format = Format(sys::GGML_TYPE_Q4_1);
    pub const Q5_1: Format = Format(sys::GGML_TYPE_Q5_1);
    pub const Q8_0: Format = Format(sys::GGML_TYPE_Q8_0);
    pub const Q4_K: Format = Format(sys::GGML_TYPE_Q4_K);

    /// The format of this number in a file; `None` for a number that ggml doesn't use, or no longer.
    pub(crate) fn new(number: u32) -> Option<Self> {
        if number >= sys::GGML_TYPE_COUNT {
            return None;
        }
        let format = Format(number);
        (format.block_numbers() > 0 && format.block_bytes() > 0).then_some(format)
    }

    pub(crate) fn ggml(self) -> sys::ggml_type {
        self.0
    }

    /// Numbers per block.
    pub fn block_numbers(self) -> u64 {
        // SAFETY: a look-up in a table, of a number that is below its length.
        unsafe { sys::ggml_blck_size(self.0) }.unsigned_abs()
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> u64 {
        // SAFETY: as above.
        unsafe { sys::ggml_type_size(self.0) as u64 }
    }

    /// Bytes before the block that contains this number.
    pub(crate) fn bytes_of(self, number: u64) -> u64 {
        number / self.block_numbers() * self.block_bytes()
    }

    /// Bytes of a tensor of this shape, whose rows are whole blocks; `None` on overflow.
    pub(crate) fn bytes(self, shape: [u64; 3]) -> Option<u64> {
        let [row, rows, matrices] = shape;
        let row = (row / self.block_numbers()).checked_mul(self.block_bytes())?;
        row.checked_mul(rows)?.checked_mul(matrices)
    }
}

/// The name in capitals, such as `Q4_1`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: a look-up in a table, of a number that is below its length.
        let name = unsafe { sys::ggml_type_name(self.0) };
        // SAFETY: a static text that ends with NUL.
        let name = unsafe { CStr::from_ptr(name) };
        f.write_str(&name.to_string_lossy().to_uppercase())
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

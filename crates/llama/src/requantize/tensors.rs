//! Which tensors a file has, and in which formats.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::load::{LoadError, check_file};
use crate::log::collect_errors;
use crate::shim::{self, guarded};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) format: sys::ggml_type,
    /// Numbers in a row, rows, and how many such matrices.
    pub(super) shape: [u64; 3],
}

/// What a file says of its tensors.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: Vec<Tensor>,
    /// Whether the model is in several files.
    pub(super) split: bool,
}

impl Header {
    pub(super) fn read(path: &Path) -> Result<Self, LoadError> {
        check_file(path)?;
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .expect("the file was opened by this path");
        let mut gguf = std::ptr::null_mut();
        let (read, errors) = collect_errors(|| {
            guarded(|what, size| {
                // SAFETY: the name ends with NUL, and the out-pointers are ours.
                unsafe { shim::weir_gguf_open(name.as_ptr(), &raw mut gguf, what, size) }
            })
        });
        let broken = |reason| LoadError::Broken {
            path: path.to_owned(),
            reason,
        };
        read.map_err(|threw| broken(threw.to_string()))?;
        let gguf = Gguf(NonNull::new(gguf).ok_or_else(|| broken(errors))?);
        Ok(Header {
            tensors: gguf.tensors(),
            split: gguf.has(c"split.count"),
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }
}

impl Tensor {
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().copied().fold(1, u64::saturating_mul)
    }

    /// What it takes in a format whose blocks its rows are whole ones of.
    pub(super) fn bytes(&self, format: sys::ggml_type) -> u64 {
        // SAFETY: a look-up in a table; llama.cpp or we have named the format.
        let size = unsafe { sys::ggml_row_size(format, self.shape[0].cast_signed()) };
        (size as u64)
            .saturating_mul(self.shape[1])
            .saturating_mul(self.shape[2])
    }
}

/// Such as `Q4_1`.
pub(super) fn name(format: sys::ggml_type) -> String {
    // SAFETY: a look-up in a table, of a format that llama.cpp or we have named.
    let name = unsafe { sys::ggml_type_name(format) };
    // SAFETY: a static text that ends with NUL.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_string_lossy().to_uppercase()
}

struct Gguf(NonNull<sys::gguf_context>);

impl Gguf {
    fn has(&self, key: &CStr) -> bool {
        // SAFETY: the context is alive, and the key ends with NUL.
        unsafe { sys::gguf_find_key(self.0.as_ptr(), key.as_ptr()) >= 0 }
    }

    fn tensors(&self) -> Vec<Tensor> {
        // SAFETY: the context is alive.
        let count = unsafe { sys::gguf_get_n_tensors(self.0.as_ptr()) };
        (0..count).map(|index| self.tensor(index)).collect()
    }

    fn tensor(&self, index: i64) -> Tensor {
        let gguf = self.0.as_ptr();
        // SAFETY: the context is alive, and it has so many tensors.
        let name = unsafe { sys::gguf_get_tensor_name(gguf, index) };
        // SAFETY: the text is the context's and ends with NUL.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: as above.
        let format = unsafe { sys::gguf_get_tensor_type(gguf, index) };
        // SAFETY: as above.
        let sizes = unsafe { sys::gguf_get_tensor_ne(gguf, index) };
        // SAFETY: there are four, and they are the context's.
        let sizes: &[i64; 4] = unsafe { &*sizes.cast() };
        let [row, rows, matrices, more] = sizes.map(i64::unsigned_abs);
        Tensor {
            name: name.to_string_lossy().into_owned(),
            format,
            shape: [row, rows, matrices.saturating_mul(more)],
        }
    }
}

impl Drop for Gguf {
    fn drop(&mut self) {
        // SAFETY: this value owns the context.
        unsafe { sys::gguf_free(self.0.as_ptr()) }
    }
}

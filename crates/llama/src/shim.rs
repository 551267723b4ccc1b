//! The shim's functions, and handles that own the objects which llama.cpp allocates.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::files::Files;
use crate::log::collect_errors;
use crate::threads::{Team, Threads, Use};

/// A call of llama.cpp threw an exception, with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("llama.cpp threw: {0}")]
pub(crate) struct Threw(String);

/// Runs a call of the shim with a buffer for the exception's text.
pub(crate) fn guarded(call: impl FnOnce(*mut c_char, usize) -> bool) -> Result<(), Threw> {
    let mut what = [0u8; 256];
    if call(what.as_mut_ptr().cast(), what.len()) {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&what).unwrap_or_default();
    Err(Threw(text.to_string_lossy().into_owned()))
}

// Each function writes its results through the pointers before `what`, and the text of an exception to `what`, which has
// room for `what_size` bytes. None of them unwinds.
unsafe extern "C" {
    pub(crate) fn weir_model_load(
        path: *const c_char,
        params: *const sys::llama_model_params,
        model: *mut *mut sys::llama_model,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    pub(crate) fn weir_context_new(
        model: *mut sys::llama_model,
        params: *const sys::llama_context_params,
        context: *mut *mut sys::llama_context,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_decode(
        context: *mut sys::llama_context,
        batch: *const sys::llama_batch,
        unwanted: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
        data: *mut c_void,
        code: *mut i32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    pub(crate) fn weir_logits(
        context: *mut sys::llama_context,
        row: i32,
        logits: *mut *const f32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    pub(crate) fn weir_embedding(
        context: *mut sys::llama_context,
        row: i32,
        vector: *mut *const f32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    pub(crate) fn weir_quantize(
        from: *const c_char,
        to: *const c_char,
        params: *const sys::llama_model_quantize_params,
        code: *mut u32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_clear(context: *mut sys::llama_context);

    pub(crate) fn weir_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        text_size: i32,
        tokens: *mut sys::llama_token,
        tokens_size: i32,
        parse_special: bool,
        count: *mut i32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    pub(crate) fn weir_piece(
        vocab: *const sys::llama_vocab,
        token: sys::llama_token,
        bytes: *mut c_char,
        bytes_size: i32,
        count: *mut i32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_state_size(
        context: *mut sys::llama_context,
        sequence: i32,
        bytes: *mut usize,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_state_get(
        context: *mut sys::llama_context,
        sequence: i32,
        state: *mut u8,
        size: usize,
        bytes: *mut usize,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_state_set(
        context: *mut sys::llama_context,
        sequence: i32,
        state: *const u8,
        size: usize,
        bytes: *mut usize,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    fn weir_sequence_copy(
        context: *mut sys::llama_context,
        from: i32,
        to: i32,
        begin: i32,
        end: i32,
    );

    fn weir_sequence_remove(context: *mut sys::llama_context, sequence: i32, begin: i32) -> bool;

    pub(crate) fn weir_threads_new(threads: i32, polling: u32) -> *mut sys::ggml_threadpool;

    pub(crate) fn weir_threads_free(threads: *mut sys::ggml_threadpool);

    fn weir_kernels_check(
        spoil: bool,
        products: *mut i32,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;

    #[cfg(any(feature = "dispatch", test))]
    pub(crate) fn weir_kernels_load(
        path: *const c_char,
        loaded: *mut bool,
        what: *mut c_char,
        what_size: usize,
    ) -> bool;
}

/// Multiplies with weights of all kinds, and returns how many products were right; the error names the first kind that
/// came out wrong. `spoil` falsifies an output of each. The kernels must have been started.
pub(crate) fn check_kernels(spoil: bool) -> Result<u32, Threw> {
    let mut products = 0;
    guarded(|what, size| {
        // SAFETY: the number is ours, and the buffer the guard's.
        unsafe { weir_kernels_check(spoil, &raw mut products, what, size) }
    })?;
    Ok(u32::try_from(products).unwrap_or_default())
}

/// Weights and vocabulary. Nothing changes them after loading, so all threads may read them.
#[derive(Debug)]
pub(crate) struct Weights {
    model: NonNull<sys::llama_model>,
    files: Arc<Files>,
}

// SAFETY: the pointer is owned by this value alone, and llama.cpp doesn't tie a model to a thread.
unsafe impl Send for Weights {}
// SAFETY: behind `&Weights` only functions that take `const llama_model *` or `const llama_vocab *` are called;
// llama.h states that the tokenizer is thread-safe. The one call that takes the model mutably, making a context
// in `Context::new`, only reads it.
unsafe impl Sync for Weights {}

impl Weights {
    /// # Safety
    ///
    /// The model was loaded by llama.cpp, and no other code frees it.
    pub(crate) unsafe fn own(model: NonNull<sys::llama_model>, files: Arc<Files>) -> Self {
        Weights { model, files }
    }

    pub(crate) fn pointer(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    /// The files that the weights are mapped from.
    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    pub(crate) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model lives as long as `self`.
        unsafe { sys::llama_model_get_vocab(self.pointer()) }
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: this value owns the model; contexts and tokenizers hold an `Arc` of it, so they are gone.
        unsafe { sys::llama_model_free(self.model.as_ptr()) }
        self.files.unmapped();
    }
}

/// The code that `llama_decode` returns when its abort callback stopped it.
pub(crate) const UNWANTED: i32 = 2;

/// A llama.cpp context: the KV cache and the buffers of a step.
#[derive(Debug)]
pub(crate) struct Handle {
    context: NonNull<sys::llama_context>,
    _weights: Arc<Weights>,
}

// SAFETY: the pointers are owned by this value alone, and llama.cpp doesn't tie a context to the thread that made
// it. It isn't `Sync`: reading logits reorders them lazily, behind a shared reference.
unsafe impl Send for Handle {}

impl Handle {
    /// `None` when llama.cpp refuses the parameters; it has logged why.
    pub(crate) fn new(
        weights: &Arc<Weights>,
        params: &sys::llama_context_params,
    ) -> Result<Option<Self>, Threw> {
        let mut context = std::ptr::null_mut();
        guarded(|what, size| {
            // SAFETY: the model is alive, `params` came from llama.cpp's defaults, and the out-pointers are ours.
            unsafe { weir_context_new(weights.pointer(), params, &raw mut context, what, size) }
        })?;
        Ok(NonNull::new(context).map(|context| Handle {
            context,
            _weights: Arc::clone(weights),
        }))
    }

    /// Computes a batch and returns the code of `llama_decode`.
    ///
    /// # Safety
    ///
    /// The batch's values satisfy llama.cpp's assertions, and `data` is valid for `unwanted`.
    pub(crate) unsafe fn decode(
        &mut self,
        batch: *const sys::llama_batch,
        unwanted: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
        data: *mut c_void,
    ) -> Result<i32, Threw> {
        let (mut code, context) = (0, self.pointer());
        let (called, errors) = collect_errors(|| {
            guarded(|what, size| {
                // SAFETY: the context is alive and ours alone; the caller promises the rest.
                unsafe { weir_decode(context, batch, unwanted, data, &raw mut code, what, size) }
            })
        });
        // llama.cpp logs an aborted step as an error; here it is none.
        if code != UNWANTED && !errors.is_empty() {
            tracing::error!(target: "llama.cpp", "{errors}");
        }
        called?;
        Ok(code)
    }

    /// The cache's content of a sequence, in llama.cpp's format; empty if llama.cpp can't write it.
    pub(crate) fn state(&mut self, sequence: i32) -> Result<Vec<u8>, Threw> {
        let mut bytes = 0;
        guarded(|what, size| {
            // SAFETY: the context is alive, and the result ours.
            unsafe { weir_state_size(self.pointer(), sequence, &raw mut bytes, what, size) }
        })?;
        let mut state = vec![0; bytes];
        guarded(|what, size| {
            // SAFETY: as above, and the buffer is as long as said.
            unsafe {
                weir_state_get(
                    self.pointer(),
                    sequence,
                    state.as_mut_ptr(),
                    state.len(),
                    &raw mut bytes,
                    what,
                    size,
                )
            }
        })?;
        state.truncate(bytes);
        Ok(state)
    }

    /// Replaces the cache's content of a sequence. `false` if there is no room, or if the state is from another kind of context.
    pub(crate) fn set_state(&mut self, sequence: i32, state: &[u8]) -> Result<bool, Threw> {
        let mut bytes = 0;
        guarded(|what, size| {
            // SAFETY: the context is alive, and the buffer as long as said, beyond which llama.cpp doesn't read.
            unsafe {
                weir_state_set(
                    self.pointer(),
                    sequence,
                    state.as_ptr(),
                    state.len(),
                    &raw mut bytes,
                    what,
                    size,
                )
            }
        })?;
        Ok(bytes == state.len())
    }

    /// Gives a sequence these tokens of another one; the cells are shared.
    ///
    /// # Safety
    ///
    /// Both are sequences of the context; `begin` and `end` are positions, or both negative for all tokens.
    pub(crate) unsafe fn copy(&mut self, from: i32, to: i32, begin: i32, end: i32) {
        // SAFETY: the context is alive; the caller promises the rest.
        unsafe { weir_sequence_copy(self.pointer(), from, to, begin, end) }
    }

    /// Removes the tokens of a sequence from `begin` on. `false` if it has a recurrent state, which can't be cut.
    ///
    /// # Safety
    ///
    /// `sequence` is one of the context's.
    pub(crate) unsafe fn remove(&mut self, sequence: i32, begin: i32) -> bool {
        // SAFETY: the context is alive; the caller promises the rest.
        unsafe { weir_sequence_remove(self.pointer(), sequence, begin) }
    }

    /// Empties all sequences. Does nothing for a model without a cache.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the context is alive.
        unsafe { weir_clear(self.pointer()) }
    }

    /// Computes on these threads from now on.
    ///
    /// # Safety
    ///
    /// The pool lives at least as long as the context.
    pub(crate) unsafe fn join(&mut self, team: Team) {
        // SAFETY: both are alive. Without a second pool llama.cpp uses the first one for prompts as well.
        unsafe {
            sys::llama_attach_threadpool(self.pointer(), team.pool.as_ptr(), std::ptr::null_mut());
        };
        let count = team.count.cast_signed();
        // SAFETY: the context is alive.
        unsafe { sys::llama_set_n_threads(self.pointer(), count, count) };
    }

    pub(crate) fn pointer(&self) -> *mut sys::llama_context {
        self.context.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this value owns the context. The model, which it refers to, is dropped after this.
        unsafe { sys::llama_free(self.context.as_ptr()) }
    }
}

/// A context with the threads that it computes on.
#[derive(Debug)]
pub(crate) struct Context {
    // Must be dropped before the threads: fields are dropped in this order.
    handle: Handle,
    threads: Threads,
}

impl Context {
    /// `None` when llama.cpp refuses the parameters; it has logged why.
    pub(crate) fn new(
        weights: &Arc<Weights>,
        params: &sys::llama_context_params,
        threads: Use,
    ) -> Result<Option<Self>, Threw> {
        let Some(mut handle) = Handle::new(weights, params)? else {
            return Ok(None);
        };
        let most = params.n_threads.cast_unsigned();
        // SAFETY: fields drop in their order, so the context is freed before its threads.
        let threads = unsafe { Threads::attach(&mut handle, most, threads) };
        Ok(Some(Context { handle, threads }))
    }

    /// Computes a batch and returns the code of `llama_decode`. The number of threads for the next one may change.
    ///
    /// # Safety
    ///
    /// The batch's values satisfy llama.cpp's assertions, and `data` is valid for `unwanted`.
    pub(crate) unsafe fn decode(
        &mut self,
        batch: *const sys::llama_batch,
        unwanted: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
        data: *mut c_void,
    ) -> Result<i32, Threw> {
        self.threads.around(&mut self.handle, |handle| {
            // SAFETY: the caller promises the same.
            unsafe { handle.decode(batch, unwanted, data) }
        })
    }

    /// The number of threads that the next step is computed on.
    pub(crate) fn threads(&self) -> u32 {
        self.threads.count()
    }

    /// Lets another context compute on the same threads. That context must be freed before this one.
    pub(crate) fn lend<T>(&mut self, compute: impl FnOnce(Team) -> T) -> T {
        let team = self.threads.team();
        self.threads.around(&mut self.handle, |_| compute(team))
    }

    pub(crate) fn handle(&mut self) -> &mut Handle {
        &mut self.handle
    }

    pub(crate) fn pointer(&self) -> *mut sys::llama_context {
        self.handle.pointer()
    }
}

//! Passes llama.cpp's log lines on to `tracing`.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::catch_unwind;

use llama_cpp_sys_2 as sys;

/// A line that hasn't ended is logged once it is longer than this, in bytes.
const LINE_MAX: usize = 4096;

thread_local! {
    /// The unfinished line: llama.cpp logs parts of lines, which are put together here.
    static LINE: RefCell<(sys::ggml_log_level, String)> = const { RefCell::new((sys::GGML_LOG_LEVEL_NONE, String::new())) };
    /// Errors that this thread has logged since [`collect_errors`] began, `None` outside of it.
    static ERRORS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Redirects llama.cpp's log, which would otherwise go to the standard error stream.
pub(crate) fn install() {
    // SAFETY: the callback is a function, so it lives as long as the process, and it takes no user data.
    unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// Runs `call` and returns the errors that llama.cpp logged meanwhile, joined by `; `. They aren't passed on to `tracing`:
/// the caller handles them.
pub(crate) fn collect_errors<T>(call: impl FnOnce() -> T) -> (T, String) {
    ERRORS.set(Some(Vec::new()));
    let result = call();
    let errors = ERRORS.take().unwrap_or_default();
    (result, errors.join("; "))
}

extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a text that ends with NUL and outlives this call.
    let text = unsafe { CStr::from_ptr(text) };
    // A panic must not unwind into C++: the log line is lost instead.
    let _ = catch_unwind(|| take(level, &text.to_string_lossy()));
}

fn take(level: sys::ggml_log_level, text: &str) {
    LINE.with_borrow_mut(|(line_level, line)| {
        if level != sys::GGML_LOG_LEVEL_CONT {
            *line_level = level;
        }
        for part in text.split_inclusive('\n') {
            line.push_str(part);
            if part.ends_with('\n') || line.len() > LINE_MAX {
                emit(*line_level, line.trim());
                line.clear();
            }
        }
    });
}

/// Passes a line on, warnings and information at debug level. llama.cpp's information is several hundred lines of
/// internals per model; its warnings are mostly about conditions that the caller handles (a full cache) or chose
/// (a sliding-window cache of full size).
fn emit(level: sys::ggml_log_level, line: &str) {
    // llama.cpp shows progress as dots, and separates its output by empty lines.
    if line.trim_matches('.').is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => emit_error(line),
        sys::GGML_LOG_LEVEL_WARN | sys::GGML_LOG_LEVEL_INFO => {
            tracing::debug!(target: "llama.cpp", "{line}");
        }
        _ => tracing::trace!(target: "llama.cpp", "{line}"),
    }
}

fn emit_error(line: &str) {
    let collected = ERRORS.with_borrow_mut(|errors| match errors {
        Some(errors) => {
            errors.push(line.to_owned());
            true
        }
        None => false,
    });
    if !collected {
        tracing::error!(target: "llama.cpp", "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_collected_line_by_line() {
        let pieces: &[(sys::ggml_log_level, &str)] = &[
            (sys::GGML_LOG_LEVEL_ERROR, "first "),
            (sys::GGML_LOG_LEVEL_CONT, "line\nsecond"),
            (sys::GGML_LOG_LEVEL_CONT, "\n"),
            (sys::GGML_LOG_LEVEL_INFO, "not an error\n"),
            (sys::GGML_LOG_LEVEL_CONT, "....\n"),
        ];
        let ((), errors) =
            collect_errors(|| pieces.iter().for_each(|&(level, text)| take(level, text)));
        assert_eq!(errors, "first line; second");
    }
}

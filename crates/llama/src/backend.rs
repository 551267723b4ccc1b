//! The CPU backend as a whole: its start, once per process, and the instruction sets that it was built for.

use std::ffi::CStr;
use std::sync::LazyLock;

use llama_cpp_sys_2 as sys;

#[cfg(feature = "dispatch")]
use crate::dispatch;
use crate::log;
use crate::shim;

/// The instruction sets that llama.cpp was compiled for, in its own notation, or the reason why it can't run here.
pub fn system_info() -> String {
    match &*BACKEND {
        Ok(features) => features.clone(),
        Err(reason) => reason.clone(),
    }
}

/// Multiplies matrices with weights of each kind and compares the products. The error names the first kind that came out wrong.
pub fn check_kernels() -> Result<(), String> {
    start()?;
    let checked = shim::check_kernels(false);
    checked.map(drop).map_err(|threw| threw.to_string())
}

/// Starts the kernels on the first call. The error says why they can't run on this machine.
pub(crate) fn start() -> Result<(), &'static str> {
    match &*BACKEND {
        Ok(_) => Ok(()),
        Err(reason) => Err(reason),
    }
}

static BACKEND: LazyLock<Result<String, String>> = LazyLock::new(|| {
    log::install();
    #[cfg(not(feature = "dispatch"))]
    check_processor()?;
    #[cfg(feature = "dispatch")]
    dispatch::load_best()?;
    // SAFETY: runs once, before any other call; it may be followed by any number of models.
    unsafe { sys::llama_backend_init() };
    // SAFETY: the text is a static of llama.cpp that each call writes again; this is the only call, and it is
    // made once.
    let features = unsafe { sys::llama_print_system_info() };
    // SAFETY: the text ends with NUL, and no other call writes to it while it is copied.
    let features = unsafe { CStr::from_ptr(features) }
        .to_string_lossy()
        .into_owned();
    warn_if_slow(&features);
    Ok(features)
});

/// Refuses a processor without the instructions that the kernels use from their start: they would end the process.
#[cfg(all(target_arch = "x86_64", not(feature = "dispatch")))]
fn check_processor() -> Result<(), String> {
    let needs = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("F16C", is_x86_feature_detected!("f16c")),
        ("BMI2", is_x86_feature_detected!("bmi2")),
    ];
    match needs.iter().find(|(_, present)| !present) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "this processor has no {name}, which the embedded engine needs"
        )),
    }
}

#[cfg(all(not(target_arch = "x86_64"), not(feature = "dispatch")))]
fn check_processor() -> Result<(), String> {
    Ok(())
}

/// With `SOURCE_DATE_EPOCH` set, and when cross-compiling, ggml's build falls back to SSE2 without a message.
fn warn_if_slow(features: &str) {
    if cfg!(all(target_arch = "x86_64", not(feature = "dispatch"))) && !has(features, "AVX2") {
        tracing::warn!(
            features,
            "llama.cpp was built without AVX2 and will be several times slower"
        );
    }
}

/// Whether the feature is on in llama.cpp's list (`AVX = 1 | AVX2 = 1 | …`).
fn has(features: &str, name: &str) -> bool {
    features
        .split(['|', ':'])
        .filter_map(|entry| entry.split_once('='))
        .any(|(key, value)| key.trim() == name && value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_found_by_its_whole_name() {
        let features = "CPU : SSE3 = 1 | AVX2 = 1 | FMA = 0 | LLAMAFILE = 1 | ";
        for (name, expected) in [
            ("SSE3", true),
            ("AVX2", true),
            ("AVX", false),
            ("FMA", false),
            ("AMX_INT8", false),
        ] {
            assert_eq!(has(features, name), expected, "{name}");
        }
    }

    #[test]
    #[cfg(not(feature = "dispatch"))]
    fn kernels_multiply_right_and_it_would_show_if_not() {
        start().expect("this machine has what they need");
        // 16 formats with 1, 5 and 32 tokens each, and once more for the formats that ggml repacks.
        let right = shim::check_kernels(false);
        assert!(
            right.as_ref().is_ok_and(|&products| products >= 48),
            "{right:?}"
        );
        let wrong = shim::check_kernels(true);
        assert!(wrong.is_err_and(|threw| threw.to_string().contains("wrong products of f32")));
    }

    /// AMX must stay out, since some virtual machines advertise it and fault on it, and AVX-512, since many machines lack it.
    #[test]
    #[cfg(all(target_arch = "x86_64", not(feature = "dispatch")))]
    fn built_for_every_machine_with_avx2_and_for_nothing_more() {
        let features = system_info();
        assert!(has(&features, "AVX2"), "{features}");
        assert!(has(&features, "FMA"), "{features}");
        assert!(!features.contains("AMX"), "{features}");
        assert!(!features.contains("AVX512"), "{features}");
        assert!(!features.contains("OPENMP"), "its workers spin: {features}");
    }
}

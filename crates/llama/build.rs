//! Compiles the shim that keeps C++ exceptions out of Rust.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=DEP_LLAMA_GGML_CMAKE_DIR");

    // llama-cpp-sys-2 says where it installed ggml's CMake package; the headers, llama.h among them,
    // are two folders up.
    refuse_native();

    let cmake =
        env::var("DEP_LLAMA_GGML_CMAKE_DIR").expect("llama-cpp-sys-2 exports ggml_cmake_dir");
    let installed = Path::new(&cmake)
        .ancestors()
        .nth(2)
        .expect("<prefix>/lib/cmake");

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(true)
        .extra_warnings(true)
        .include(installed.join("include"))
        .file("shim/kernels.cpp")
        .file("shim/weir_llama.cpp")
        .compile("weir_llama");
}

/// Fails the build with `target-cpu=native`: ggml would then be compiled for every feature that the building processor
/// advertises, AMX among them, and AMX instructions fault on virtual machines that mask them.
fn refuse_native() {
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    assert!(
        !flags.contains("target-cpu=native"),
        "llama.cpp built with target-cpu=native may not run, not even here: build without it"
    );
}

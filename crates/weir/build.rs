//! Lets the program of `make package` find llama.cpp's libraries in `lib/` beside it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_DISPATCH").is_some() {
        // An RPATH, unlike a RUNPATH, also holds for libraries that the libraries need.
        println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib");
    }
}

//! The program of `make package` finds llama.cpp's libraries in `lib/` beside it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_DISPATCH").is_some() {
        // As RPATH, which also holds for what the libraries need of each other.
        println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib");
    }
}

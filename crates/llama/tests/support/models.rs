//! The folder of the models for tests.

use std::env;
use std::path::PathBuf;

/// The folder in `WEIR_TEST_MODELS`, or `models` in the workspace.
pub(crate) fn models() -> PathBuf {
    match env::var_os("WEIR_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")),
    }
}

/// The demo model, which every test may require.
pub(crate) fn smollm2_file() -> PathBuf {
    let path = models().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(
        path.is_file(),
        "{} is missing: run `make models`",
        path.display()
    );
    path
}

//! Tries a model file, as `weir try-model` does: for this crate's tests, which have no `weir`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use weir_llama::{ServeOptions, TRIAL_REFUSED, TRIAL_WORKS, try_model};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let (Some(path), Some(options)) = (arguments.next(), arguments.next()) else {
        return ExitCode::FAILURE;
    };
    let options = options.to_string_lossy();
    let options: ServeOptions = serde_json::from_str(&options).unwrap_or_default();
    let (text, code) = match try_model(Path::new(&path), &options) {
        Ok(()) => (TRIAL_WORKS.to_owned(), ExitCode::SUCCESS),
        Err(error) => (error.to_string(), ExitCode::from(TRIAL_REFUSED)),
    };
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

//! `weir try-model`: tries to load a model file. It runs in a process of its own, which the file may end.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use weir_llama::{ServeOptions, TRIAL_REFUSED, TRIAL_WORKS};

use crate::output;

pub(crate) fn try_model(file: &Path, options: &str) -> anyhow::Result<ExitCode> {
    let options: ServeOptions = serde_json::from_str(options).context("how it is to be served")?;
    match weir_llama::try_model(file, &options) {
        Ok(()) => {
            output::line(TRIAL_WORKS)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            output::line(&error.to_string())?;
            Ok(ExitCode::from(TRIAL_REFUSED))
        }
    }
}

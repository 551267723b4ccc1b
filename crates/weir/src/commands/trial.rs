//! `weir try-model`: can a model file be loaded? It may end this process, which is why it has its own.

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

//! `weir probe-kernels`: tests a library of kernels on this machine. It runs in a process of its own, which the test may end.

use std::path::Path;
use std::process::ExitCode;

use weir_llama::{PROBE_WORKS, Unfit};

use crate::output;

pub(crate) fn probe(library: &Path) -> anyhow::Result<ExitCode> {
    match weir_llama::probe(library) {
        Ok(()) => {
            output::line(PROBE_WORKS)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(unfit @ Unfit::Processor) => {
            output::line(&unfit.to_string())?;
            Ok(ExitCode::FAILURE)
        }
        Err(unfit @ Unfit::Broken(_)) => Err(unfit.into()),
    }
}

//! `weir probe-kernels`: is a library of kernels one for this machine? It may end this process, which is why it has its own.

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

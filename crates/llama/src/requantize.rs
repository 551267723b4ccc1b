//! `optimize = "speed"`: a copy of a file whose weights are in formats that this machine is fast at.
//!
//! llama.cpp has kernels that multiply many tokens with a tile of weights at once, but not for every format. Weights
//! in other formats are requantized to `Q8_0`, which loses next to nothing, since they have fewer bits, and is fast
//! because reading its larger blocks takes less time than computing with them. The copy's loss is measured before it is served.

mod copies;
mod difference;
mod plan;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::copies::{Copies, Record};
use self::plan::Plan;
use crate::gguf::Gguf;
use crate::options::LoadError;
use crate::{backend, sizes};

pub use self::difference::Difference;

/// The mean KL divergence, in nats, above which a copy isn't served: four times that of the demo model.
pub const KL_MEAN_MAX: f64 = 0.02;

#[derive(Debug, Clone)]
pub struct SpeedOptions {
    /// The folder of the copies. It is made if it is missing.
    pub folder: PathBuf,
    /// Threads that requantize. Default: as many as the cores that this process may use.
    pub threads: Option<u32>,
    /// The largest mean KL divergence, in nats; [`KL_MEAN_MAX`] by default.
    pub kl_mean_max: f64,
}

/// The file to serve instead of the original.
#[derive(Debug, Clone, PartialEq)]
pub enum Requantized {
    /// The original: a copy wouldn't be faster, or whether it would isn't known.
    AsItIs { why: String },
    /// The original: the copy's difference is over the limit.
    TooDifferent { difference: Difference },
    Copy {
        path: PathBuf,
        /// The formats that changed, such as `Q4_1 to Q8_0`.
        formats: String,
        difference: Difference,
        /// Whether the copy was made by this call.
        new: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum RequantizeError {
    #[error("{0}")]
    Load(#[from] LoadError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("a copy in {} takes {needed_mib} MiB, and {free_mib} MiB are free", folder.display())]
    DiskFull {
        folder: PathBuf,
        needed_mib: u64,
        free_mib: u64,
    },
    #[error("llama.cpp can't requantize {}: {reason}", path.display())]
    Kernels { path: PathBuf, reason: String },
    #[error("{} has changed while it was read", path.display())]
    Changed { path: PathBuf },
}

/// Finds a copy of the model file that is faster on this machine in the folder of copies, or makes it.
pub fn for_speed(source: &Path, options: &SpeedOptions) -> Result<Requantized, RequantizeError> {
    let header = Gguf::read(source)?;
    let plan = match Plan::of(&header) {
        Ok(plan) => plan,
        Err(why) => return Ok(Requantized::AsItIs { why }),
    };
    let copies = Copies::of(source, &options.folder)?;
    if let Some(record) = copies.find() {
        return Ok(verdict(&copies, record, options, false));
    }
    // Another thread or process may be making a copy: wait for it, since it may be the same one.
    let _lock = copies.lock()?;
    if let Some(record) = copies.find() {
        return Ok(verdict(&copies, record, options, false));
    }
    if crate::open(source)?.is_embedder() {
        let why = "it is made for embeddings".to_owned();
        return Ok(Requantized::AsItIs { why });
    }
    let record = make(source, &plan, &copies, options)?;
    Ok(verdict(&copies, record, options, true))
}

/// Turns a record into a result. A record without a copy tells that the copy differed too much.
fn verdict(copies: &Copies, record: Record, options: &SpeedOptions, new: bool) -> Requantized {
    let Record {
        formats,
        difference,
        copy,
        source: _,
    } = record;
    if copy.is_none() || !difference.within(options.kl_mean_max) {
        return Requantized::TooDifferent { difference };
    }
    Requantized::Copy {
        path: copies.file(),
        formats,
        difference,
        new,
    }
}

/// Makes the copy under a temporary name, measures it, and only then gives it its own name and a record.
fn make(
    source: &Path,
    plan: &Plan,
    copies: &Copies,
    options: &SpeedOptions,
) -> Result<Record, RequantizeError> {
    let temporary = copies.clear()?;
    tracing::info!(
        source = %source.display(),
        formats = plan.formats,
        mib = plan.bytes >> 20,
        "making a copy that is faster on this machine, once"
    );
    let made = quantize_and_measure(source, &temporary, plan, options);
    let difference = match made {
        Ok(difference) => difference,
        Err(error) => {
            // The unfinished file would only take space; a failure to remove it isn't worth a second error.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
    };
    if !copies.are_of(source)? {
        let _ = fs::remove_file(&temporary);
        let path = source.to_owned();
        return Err(RequantizeError::Changed { path });
    }
    let serve = difference.within(options.kl_mean_max);
    copies.keep(&temporary, &plan.formats, difference, serve)
}

fn quantize_and_measure(
    source: &Path,
    copy: &Path,
    plan: &Plan,
    options: &SpeedOptions,
) -> Result<Difference, RequantizeError> {
    copies::check_room(&options.folder, plan.bytes)?;
    backend::start().map_err(LoadError::Machine)?;
    let threads = sizes::threads(options.threads)?;
    plan.quantize(source, copy, threads)?;
    plan.check(&Gguf::read(copy)?)
        .map_err(|reason| RequantizeError::Kernels {
            path: source.to_owned(),
            reason,
        })?;
    Ok(difference::measure(source, copy, threads)?)
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests;

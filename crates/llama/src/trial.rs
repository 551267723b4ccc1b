//! Loading a file in another process first. What a file says can't be checked as a whole: llama.cpp and ggml have
//! hundreds of asserts that a wrong number in it may reach, each for a few architectures, and each ends the process. So the
//! program tries a file that it doesn't know with `weir try-model FILE OPTIONS`, which does to it all that serving does. A
//! file that ends that process is an error of this one.
//!
//! This is for damage. A file that was made to attack may do to the first process whatever it likes.

mod exercise;

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use crate::load::{EmbedOptions, LoadError, LoadOptions, ServeOptions, open};
use crate::log;

/// The program's command that calls [`try_model`].
pub const TRIAL_COMMAND: &str = "try-model";
/// What that command writes to its standard output if all went well.
pub const TRIAL_WORKS: &str = "this model works";

/// Processor time of a trial: loading takes little, and the few tokens that are computed take seconds for the largest models.
const TRIAL_SECONDS: u64 = 900;
/// Cells of a trial's cache: enough for a second context, which computes prompts of 512 tokens and more.
const TRIAL_CELLS: u32 = 1_024;
const TRIAL_SEQUENCES: u32 = 2;
/// A file that is smaller is computed by one thread: several spin while they wait for each other, and the first one is done
/// within a second.
const LARGE_BYTES: u64 = 2 << 30;

/// What is known of a file before it is loaded for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Works,
    Refused(String),
    Died { status: ExitStatus, said: String },
}

/// Loads a file and computes a few tokens. It may end the process, which then leaves no core, and takes no longer than
/// [`TRIAL_SECONDS`] of its processors.
pub fn try_model(path: &Path, options: &ServeOptions) -> Result<(), LoadError> {
    contain();
    log::install();
    let bytes = std::fs::metadata(path).map_or(0, |facts| facts.len());
    let options = small(options, bytes);
    let loaded = open(path)?.serve(&options)?;
    exercise::exercise(loaded).map_err(|reason| LoadError::Broken {
        path: path.to_owned(),
        reason,
    })
}

/// The same of a model with so many bytes, with a small cache.
fn small(options: &ServeOptions, bytes: u64) -> ServeOptions {
    let most = |asked: Option<u32>, most: u32| Some(asked.unwrap_or(most).min(most));
    let threads = |asked| if bytes < LARGE_BYTES { Some(1) } else { asked };
    let ServeOptions {
        generate,
        embed,
        embeddings,
    } = options.clone();
    ServeOptions {
        generate: LoadOptions {
            threads: threads(generate.threads),
            threads_min: None,
            cells: most(generate.cells, TRIAL_CELLS),
            sequences: most(generate.sequences, TRIAL_SEQUENCES),
            context_tokens: generate
                .context_tokens
                .map(|tokens| tokens.min(TRIAL_CELLS)),
            ..generate
        },
        embed: EmbedOptions {
            threads: threads(embed.threads),
            threads_min: None,
            ..embed
        },
        embeddings,
    }
}

/// What fails here isn't worth more than the trial itself: it goes on without.
fn contain() {
    let limit = |resource, most| {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        let _ = setrlimit(resource, limit);
    };
    limit(Resource::Core, 0);
    limit(Resource::Cpu, TRIAL_SECONDS);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // Without memory enough this process goes, not one that serves.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Has `program` try a file. The error says what is wrong with it.
pub fn try_out(program: &Path, path: &Path, options: &ServeOptions) -> Result<(), LoadError> {
    match verdict(program, path, options)? {
        Verdict::Works => Ok(()),
        Verdict::Refused(reason) => Err(LoadError::Refused(reason)),
        Verdict::Died { status, said } => Err(LoadError::Deadly {
            path: path.to_owned(),
            status,
            said,
        }),
    }
}

fn verdict(program: &Path, path: &Path, options: &ServeOptions) -> Result<Verdict, LoadError> {
    let options = serde_json::to_string(options).expect("plain data");
    let done = Command::new(program)
        .arg(TRIAL_COMMAND)
        .arg(path)
        .arg(options)
        // An assert of ggml would call a debugger, and its message would not be the last line.
        .env("GGML_NO_BACKTRACE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| LoadError::Trial {
            path: path.to_owned(),
            error,
        })?;
    let said = String::from_utf8_lossy(&done.stdout);
    // Another program than ours would say something else.
    if done.status.success() && said.trim() == TRIAL_WORKS {
        return Ok(Verdict::Works);
    }
    if done.status.code() == Some(i32::from(TRIAL_REFUSED)) {
        return Ok(Verdict::Refused(said.trim().to_owned()));
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty());
    Ok(Verdict::Died {
        status: done.status,
        said: last.unwrap_or_default().trim().to_owned(),
    })
}

/// The exit status of a trial whose standard output says why the file can't be served.
pub const TRIAL_REFUSED: u8 = 3;

#[cfg(test)]
mod tests;

//! Loads a file in another process first. A file's header can't be checked completely: llama.cpp and ggml have hundreds of
//! assertions that a wrong number may reach, each for a few architectures, and each ends the process. So the program tries a
//! file that it doesn't know with `weir try-model FILE OPTIONS`, which does everything to it that serving does. If the file
//! ends that process, this one reports an error.
//!
//! This protects from damaged files. It doesn't protect from malicious ones, which may do anything to the trial process.

mod exercise;

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use crate::load::open;
use crate::log;
use crate::options::{EmbedOptions, LoadError, LoadOptions, ServeOptions};

/// The name of the program's command that calls [`try_model`].
pub const TRIAL_COMMAND: &str = "try-model";
/// The line that this command writes to its standard output if the model works.
pub const TRIAL_WORKS: &str = "this model works";

/// The limit of a trial's processor time. Loading takes little; the few tokens take seconds with the largest models.
const TRIAL_SECONDS: u64 = 900;
/// KV cells of a trial: enough for background prefill, which computes prompts of 512 tokens and more.
const TRIAL_CELLS: u32 = 1_024;
const TRIAL_SEQUENCES: u32 = 2;
/// A file smaller than this is computed by one thread: that is done within a second, and several threads would spin while they
/// wait for each other.
const LARGE_BYTES: u64 = 2 << 30;

/// The result of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Works,
    Refused(String),
    Died { status: ExitStatus, said: String },
}

/// Loads a file and computes a few tokens. A bad file may end the process: without a core file, and within
/// [`TRIAL_SECONDS`] of processor time.
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

/// The options for a trial: with a small cache, and one thread if the file has fewer than [`LARGE_BYTES`].
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

/// Limits this process. A limit that can't be set is left out: the trial is worth more.
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
    // If memory runs out, the kernel ends this process, not one that serves.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Lets `program` try a file. The error says what is wrong with the file.
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
        // When an assertion fails, ggml would start a debugger, and the message would no longer be the last line.
        .env("GGML_NO_BACKTRACE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| LoadError::Trial {
            path: path.to_owned(),
            error,
        })?;
    let said = String::from_utf8_lossy(&done.stdout);
    // The exit status isn't enough: if `program` isn't weir itself (a test binary, say), it may succeed with other output.
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

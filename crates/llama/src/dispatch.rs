//! Chooses between builds of the kernels: shared libraries in `lib/` beside the program, one for each kind of processor. The best
//! one that works here is loaded when the kernels are first needed.
//!
//! A processor's feature flags can't be trusted: some virtual machines pass on AMX's and fault at its first instruction. So
//! the program tries a library in a process of its own: `weir probe-kernels LIBRARY`.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::log::{self, collect_errors};
use crate::shim::{self, guarded, weir_kernels_load};

/// The name of the program's command that calls [`probe`].
pub const PROBE_COMMAND: &str = "probe-kernels";
/// The line that this command writes to its standard output if the library works.
pub const PROBE_WORKS: &str = "these kernels work";

/// The limit of a probe's processor time. A probe takes a fraction of a second.
const TRIAL_SECONDS: u64 = 30;

/// ggml's names of processors, best first; only the first one's kernels use AMX.
const KINDS: [&str; 14] = [
    "sapphirerapids",
    "zen4",
    "cooperlake",
    "icelake",
    "cascadelake",
    "cannonlake",
    "skylakex",
    "alderlake",
    "haswell",
    "piledriver",
    "ivybridge",
    "sandybridge",
    "sse42",
    "x64",
];

/// Why a library isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The library uses instructions that this processor doesn't advertise.
    #[error("not for this processor")]
    Processor,
    /// The library can't be loaded, or computes wrong products.
    #[error("{0}")]
    Broken(String),
}

/// Loads a library of kernels into this process and multiplies with weights of each kind. A library that doesn't work may end
/// the process: without a core file, and within [`TRIAL_SECONDS`] of processor time.
pub fn probe(library: &Path) -> Result<(), Unfit> {
    log::install();
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, TRIAL_SECONDS)?;
    load(library)?;
    let checked = shim::check_kernels(false);
    checked
        .map(drop)
        .map_err(|threw| Unfit::Broken(threw.to_string()))
}

fn limit(resource: Resource, most: u64) -> Result<(), Unfit> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).map_err(|error| Unfit::Broken(error.to_string()))
}

/// Loads the best library that works. The error says why none does.
pub(crate) fn load_best() -> Result<(), String> {
    let program =
        std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let directory = program.with_file_name("lib");
    let library = best(&directory, |library| try_out(&program, library))?;
    load(&library).map_err(|unfit| format!("{}: {unfit}", library.display()))?;
    tracing::info!(library = %library.display(), "kernels");
    Ok(())
}

fn best(directory: &Path, try_out: impl Fn(&Path) -> Result<(), Unfit>) -> Result<PathBuf, String> {
    let mut reasons = String::new();
    let libraries = KINDS.map(|kind| directory.join(format!("libggml-cpu-{kind}.so")));
    for library in libraries.into_iter().filter(|library| library.exists()) {
        match try_out(&library) {
            Ok(()) => return Ok(library),
            Err(Unfit::Processor) => {}
            Err(Unfit::Broken(reason)) => {
                let library = library.display();
                tracing::warn!(%library, reason, "these kernels don't work here");
                reasons += &format!("; {library}: {reason}");
            }
        }
    }
    Err(format!(
        "no library of kernels in {} works on this processor{reasons}",
        directory.display()
    ))
}

fn try_out(program: &Path, library: &Path) -> Result<(), Unfit> {
    let done = Command::new(program)
        .arg(PROBE_COMMAND)
        .arg(library)
        // When an assertion fails, ggml would start a debugger, and the message would no longer be the last line.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Unfit::Broken(format!("{}: {error}", program.display())))?;
    let said = String::from_utf8_lossy(&done.stdout);
    // The exit status isn't enough: if `program` isn't weir itself (a test binary, say), it may succeed with other output.
    if done.status.success() && said.trim() == PROBE_WORKS {
        return Ok(());
    }
    if said.trim() == Unfit::Processor.to_string() {
        return Err(Unfit::Processor);
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    let last = complaint.lines().last().unwrap_or_default();
    Err(Unfit::Broken(format!(
        "{}: {}{last}",
        done.status,
        said.trim()
    )))
}

fn load(library: &Path) -> Result<(), Unfit> {
    let broken = |reason: String| Unfit::Broken(reason);
    let path =
        CString::new(library.as_os_str().as_bytes()).map_err(|error| broken(error.to_string()))?;
    let mut loaded = false;
    let (called, errors) = collect_errors(|| {
        guarded(|what, size| {
            // SAFETY: the path ends with NUL, and the result is ours.
            unsafe { weir_kernels_load(path.as_ptr(), &raw mut loaded, what, size) }
        })
    });
    called.map_err(|threw| broken(threw.to_string()))?;
    match (loaded, errors.is_empty()) {
        (true, _) => Ok(()),
        // ggml reports no error for a library that isn't for this processor.
        (false, true) => Err(Unfit::Processor),
        (false, false) => Err(broken(errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_library_that_works_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["x64", "haswell", "icelake", "sapphirerapids", "unheard-of"] {
            let path = directory.path().join(format!("libggml-cpu-{name}.so"));
            std::fs::write(path, "").expect("a file");
        }
        let check = |unfit: &[(&str, Unfit)], expected: Option<&str>| {
            let found = best(directory.path(), |library| {
                let name = library.file_name().unwrap_or_default().to_string_lossy();
                let hit = unfit.iter().find(|(kind, _)| name.contains(kind));
                hit.map_or(Ok(()), |(_, unfit)| Err(unfit.clone()))
            });
            let expected =
                expected.map(|name| directory.path().join(format!("libggml-cpu-{name}.so")));
            assert_eq!(found.ok(), expected, "{unfit:?}");
        };
        let broken = || Unfit::Broken("signal: 4 (SIGILL)".to_owned());
        check(&[], Some("sapphirerapids"));
        check(&[("sapphirerapids", broken())], Some("icelake"));
        check(
            &[
                ("sapphirerapids", Unfit::Processor),
                ("icelake", Unfit::Processor),
            ],
            Some("haswell"),
        );
        check(&[("libggml", broken())], None);
    }

    #[test]
    fn what_is_no_library_is_broken() {
        log::install();
        let directory = tempfile::tempdir().expect("a directory");
        let garbage = directory.path().join("libggml-cpu-x64.so");
        std::fs::write(&garbage, "no library").expect("a file");
        for library in [garbage, directory.path().join("missing.so")] {
            let unfit = load(&library);
            assert!(
                matches!(&unfit, Err(Unfit::Broken(reason)) if reason.contains("failed to load")),
                "{unfit:?}"
            );
        }
    }

    #[test]
    fn a_program_that_ends_or_says_something_else_has_not_found_them_to_work() {
        let directory = tempfile::tempdir().expect("a directory");
        let check = |script: &str, expected: Result<(), Unfit>| {
            let program = directory.path().join("program");
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&program, mode).expect("it may be run");
            assert_eq!(
                try_out(&program, Path::new("library")),
                expected,
                "{script}"
            );
        };
        let broken = |reason: &str| Err(Unfit::Broken(reason.to_owned()));
        check("echo these kernels work", Ok(()));
        check("echo not for this processor; exit 1", Err(Unfit::Processor));
        check("echo 0 tests", broken("exit status: 0: 0 tests"));
        check("kill -KILL $$", broken("signal: 9 (SIGKILL): "));
        check("echo q8_0 >&2; exit 1", broken("exit status: 1: q8_0"));
    }
}
